"""`deployments.gateway:app`: one ingress in front of several applications without a route."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.app import Gateway


def app(args: Gateway) -> Application:
    """Build the application."""
    return build.gateway(args)
