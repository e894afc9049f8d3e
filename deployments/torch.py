"""`deployments.torch:app`: a text-generation model served by transformers on torch."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.torch import TorchApp


def app(args: TorchApp) -> Application:
    """Build the application."""
    return build.app("torch", args)
