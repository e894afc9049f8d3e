"""`deployments.openvino:app`: models of many frameworks on tensors, served by OpenVINO."""

from ray.serve import Application

from rayserve_platform.serving import build
from rayserve_platform.settings.openvino import OpenVINOApp


def app(args: OpenVINOApp) -> Application:
    """Build the application."""
    return build.app("openvino", args)
