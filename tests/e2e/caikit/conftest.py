"""Caikit's API on real Ray: the fake engine in every topology, and the real embedding model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
STANDALONE = ROOT / "configs/caikit-standalone/serve.yaml"
MODEL = "fake-embedder"


def _fake_app(topology: str, *, name: str, routed: bool = True) -> dict[str, Any]:
    """Return an application of the fake engine that embeds and scores, and speaks Caikit's API."""
    return {
        "name": name,
        "route_prefix": "/" if routed else None,
        "import_path": "deployments.fake:app",
        "args": {
            "topology": topology,
            "model": {"id": MODEL},
            "fake": {"tasks": ["embed", "score"]},
            "placement": {"num_cpus": 0.01},
            "ingress": {"num_cpus": 0.01, "protocols": ["caikit", "openai"]},
        },
    }


def _applications(topology: str) -> list[dict[str, Any]]:
    """Return the applications of one topology: one with a route, so that gRPC needs no metadata."""
    if topology != "gateway":
        return [_fake_app(topology, name="app")]
    gateway = {
        "name": "app",
        "route_prefix": "/",
        "import_path": "deployments.gateway:app",
        "args": {
            "models": {MODEL: "model"},
            "ingress": {"num_cpus": 0.01, "protocols": ["caikit", "openai"]},
        },
    }
    return [gateway, _fake_app("runtime", name="model", routed=False)]


@pytest.fixture(scope="package", params=["haproxy", "classic"])
def fake_platform(
    request: pytest.FixtureRequest,
    start_platform: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A platform of the fake engine on one of Ray's data planes; begins colocated."""
    content = yaml.safe_load(STANDALONE.read_text())
    if request.param == "classic":
        del content["controller_options"]
    content["applications"] = _applications("colocated")
    config = tmp_path_factory.mktemp("config") / "caikit.yaml"
    config.write_text(yaml.safe_dump(content))
    return start_platform(config, free_ports=True, dashboard=True)


@pytest.fixture(scope="package")
def applications() -> Callable[[str], list[dict[str, Any]]]:
    """Returns the applications of a topology."""
    return _applications


@pytest.fixture(scope="package")
def standalone(start_platform: Callable[..., Any]) -> Any:
    """`make run CONFIG=caikit-standalone`, on ports of its own."""
    return start_platform(STANDALONE, free_ports=True, dashboard=True)
