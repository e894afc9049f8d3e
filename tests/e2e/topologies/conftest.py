"""One cluster with the fake engine in every topology."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayserve_platform.serving.check import check

ROOT = Path(__file__).parents[3]
TOKEN_S = 0.02
GATEWAY = {"one": "model-one", "model-two": "model-two"}


def _app(name: str, prefix: str | None, topology: str, **fake: Any) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": prefix,
        "import_path": "deployments.fake:app",
        "args": {
            "topology": topology,
            "model": {"id": name},
            "fake": fake,
            "placement": {"num_cpus": 0.01},
            "ingress": {"num_cpus": 0.01},
        },
    }


@pytest.fixture(scope="package", params=["haproxy", "classic"])
def plane(request: pytest.FixtureRequest) -> str:
    """Ray's data plane."""
    name: str = request.param
    return name


@pytest.fixture(scope="package")
def platform(
    plane: str, start_platform: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A platform with one application a topology, on one of Ray's data planes."""
    content = yaml.safe_load((ROOT / "configs/gateway/serve.yaml").read_text())
    if plane == "classic":
        del content["controller_options"]
    narrow = _app("narrow", "/narrow", "separate", first_token_s=1.0, token_s=0.05)
    narrow["args"]["deployment"] = {"max_ongoing_requests": 1, "max_queued_requests": 1}
    tight = _app("tight", "/tight", "colocated", first_token_s=1.0)
    tight["args"]["ingress"]["limits"] = {"max_concurrent_requests": 1}
    gateway = {
        "name": "gateway",
        "route_prefix": "/gateway",
        "import_path": "deployments.gateway:app",
        "args": {"models": GATEWAY, "ingress": {"num_cpus": 0.01}},
    }
    content["applications"] = [
        _app("separate", "/separate", "separate", token_s=TOKEN_S),
        _app("colocated", "/colocated", "colocated", token_s=TOKEN_S),
        gateway,
        _app("model-one", None, "runtime", token_s=TOKEN_S),
        _app("model-two", None, "runtime", token_s=TOKEN_S),
        narrow,
        tight,
    ]
    config = tmp_path_factory.mktemp("config") / "topologies.yaml"
    config.write_text(yaml.safe_dump(content))
    assert check(config).errors == []
    return start_platform(config, free_ports=True, dashboard=True)
