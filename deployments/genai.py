"""`deployments.genai:app`: a text-generation model served by OpenVINO GenAI on a CPU."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.genai import GenAIApp


def app(args: GenAIApp) -> Application:
    """Build the application."""
    return build.app("genai", args)
