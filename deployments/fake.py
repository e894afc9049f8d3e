"""`deployments.fake:app`: the deterministic fake engine, to test and measure the ingress with."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.fake import FakeApp


def app(args: FakeApp) -> Application:
    """Build the application."""
    return build.app("fake", args)
