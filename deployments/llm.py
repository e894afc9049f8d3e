"""`deployments.llm:app`: a language model, by the engine that fits where it runs."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.llm import LLMApp


def app(args: LLMApp) -> Application:
    """Build the application."""
    return build.llm(args)
