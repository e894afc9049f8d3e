"""`deployments.embedding:app`: embedding models and cross-encoders."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.embedding import EmbeddingApp


def app(args: EmbeddingApp) -> Application:
    """Build the application."""
    return build.app("embedding", args)
