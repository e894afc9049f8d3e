"""`deployments.vllm:app`: a model served by vLLM."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.vllm import VLLMApp


def app(args: VLLMApp) -> Application:
    """Build the application."""
    return build.app("vllm", args)
