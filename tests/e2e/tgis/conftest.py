"""TGIS's API on real Ray, with the fake engine in every topology."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs/tgis/serve.yaml"
MODEL = "fake"


def _app(topology: str, name: str, **ingress: Any) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": None if topology == "runtime" else f"/{name}",
        "import_path": "deployments.fake:app",
        "args": {
            "topology": topology,
            "model": {"id": MODEL},
            "fake": {"token_s": 0.01, "adapters": ["poet"]},
            "placement": {"num_cpus": 0.01},
            "ingress": {"num_cpus": 0.01, "protocols": ["tgis"], **ingress},
        },
    }


@pytest.fixture(scope="package", params=["haproxy", "classic"])
def platform(
    request: pytest.FixtureRequest,
    start_platform: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A platform with an application of each topology, on one of Ray's data planes."""
    content = yaml.safe_load(CONFIG.read_text())
    if request.param == "classic":
        del content["controller_options"]
    gateway = {
        "name": "gateway",
        "route_prefix": "/gateway",
        "import_path": "deployments.gateway:app",
        "args": {
            "models": {MODEL: "model"},
            "ingress": {"num_cpus": 0.01, "protocols": ["tgis"]},
        },
    }
    content["applications"] = [
        _app("separate", "separate"),
        _app("colocated", "colocated"),
        _app("separate", "tight", limits={"max_concurrent_requests": 1}),
        gateway,
        _app("runtime", "model"),
    ]
    config = tmp_path_factory.mktemp("config") / "tgis.yaml"
    config.write_text(yaml.safe_dump(content))
    return start_platform(config, free_ports=True)


@pytest.fixture(scope="package")
def standalone(start_platform: Callable[..., Any]) -> Any:
    """`make run CONFIG=tgis`, on ports of its own."""
    return start_platform(CONFIG, free_ports=True)
