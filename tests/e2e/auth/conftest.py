"""One cluster whose every topology checks tokens, on each of Ray's data planes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayserve_platform.serving.check import check

ROOT = Path(__file__).parents[3]
TOPOLOGIES = ("separate", "colocated", "gateway")
SERVICERS = [
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
    "rayserve_platform.pb.reflection_pb2_grpc.add_ServerReflectionServicer_to_server",
    "rayserve_platform.pb.generation_pb2_grpc.add_GenerationServiceServicer_to_server",
]


def make_key(file: Path, *scope: str) -> str:
    """Make a key as a person does."""
    command = [sys.executable, "-m", "rayserve_platform.cli", "keys", "create"]
    command += ["--file", str(file), "--principal", "alice", *scope]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ingress(keys: Path) -> dict[str, Any]:
    success = {"headers": {"x-user": {"plain": {"selector": "auth.identity.username"}}}}
    policy = {"authentication": {"own": {"apiKey": {}}}, "response": {"success": success}}
    auth = {"keys": {"file": str(keys)}, "policy": policy}
    return {"num_cpus": 0.01, "protocols": ["openai", "tgis"], "auth": auth}


def app(name: str, topology: str, keys: Path) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": None if topology == "runtime" else f"/{name}",
        "import_path": "deployments.fake:app",
        "args": {
            "topology": topology,
            "model": {"id": "fake"},
            "placement": {"num_cpus": 0.01},
            "ingress": {"num_cpus": 0.01} if topology == "runtime" else ingress(keys),
        },
    }


@pytest.fixture(scope="package", params=["haproxy", "classic"])
def plane(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="package")
def keys(plane: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one key."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    make_key(file)
    return file


@pytest.fixture(scope="package")
def platform(
    plane: str,
    keys: Path,
    start_platform: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    content = yaml.safe_load((ROOT / "configs/gateway/serve.yaml").read_text())
    content["grpc_options"]["grpc_servicer_functions"] = SERVICERS
    if plane == "classic":
        del content["controller_options"]
    gateway = {
        "name": "gateway",
        "route_prefix": "/gateway",
        "import_path": "deployments.gateway:app",
        "args": {"models": {"fake": "behind"}, "ingress": ingress(keys)},
    }
    content["applications"] = [
        app("separate", "separate", keys),
        app("colocated", "colocated", keys),
        gateway,
        app("behind", "runtime", keys),
    ]
    config = tmp_path_factory.mktemp("config") / "auth.yaml"
    config.write_text(yaml.safe_dump(content))
    assert check(config).errors == []
    return start_platform(config, free_ports=True)
