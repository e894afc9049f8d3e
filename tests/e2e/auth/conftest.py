"""One cluster whose every topology checks tokens, on each of Ray's data planes.

Keys, signed tokens and tokens of a Kubernetes API (which come in a header of their own) are taken.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from rayserve_platform.serving.check import check
from tests.authorities import Issuer, beside
from tests.kube import KubeApi

ROOT = Path(__file__).parents[3]
TOPOLOGIES = ("separate", "colocated", "gateway")
SERVICERS = [
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
    "rayserve_platform.pb.reflection_pb2_grpc.add_ServerReflectionServicer_to_server",
    "rayserve_platform.pb.generation_pb2_grpc.add_GenerationServiceServicer_to_server",
    "rayserve_platform.pb.caikit_nlp_service_pb2_grpc.add_NlpServiceServicer_to_server",
    "rayserve_platform.pb.caikit_info_service_pb2_grpc.add_InfoServiceServicer_to_server",
    "rayserve_platform.pb.kserve_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server",
]
PROTOCOLS = {
    "separate": ["kserve", "openai", "caikit", "tgis"],
    "colocated": ["caikit", "openai", "kserve", "tgis"],
    "gateway": ["openai", "caikit", "kserve", "tgis"],
}
"""The first one's document is the one that is published."""
REVIEWED = "x-cluster-token"
REVIEW_TTL_S = 1


def make_key(file: Path, *scope: str) -> str:
    """Make a key as a person does."""
    command = [sys.executable, "-m", "rayserve_platform.cli", "keys", "create"]
    command += ["--file", str(file), "--principal", "alice", *scope]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Authorities(NamedTuple):
    """Who knows tokens. `call` runs a coroutine of theirs."""

    issuer: Issuer
    kube: KubeApi
    call: Callable[..., Any]


@pytest.fixture(scope="package")
def authorities() -> Iterator[Authorities]:
    issuer, kube = Issuer("EC"), KubeApi()
    with beside(issuer, kube) as call:
        yield Authorities(issuer, kube, call)


def ingress(topology: str, keys: Path, known: Authorities) -> dict[str, Any]:
    """Return the settings of an ingress: a signed token's own list of models decides."""
    name = {"headers": {"x-user": {"plain": {"selector": "auth.identity.username"}}}}
    jwt = {"issuerUrl": known.issuer.url, "audiences": ["rayserve"], "algorithms": ["ES256"]}
    review = {
        "kubernetesTokenReview": {"audiences": ["rayserve"]},
        "credentials": {"customHeader": {"name": REVIEWED}},
        "cache": {"key": {"value": "any"}, "ttl": REVIEW_TTL_S},
    }
    listed = {
        "when": [{"predicate": "has(auth.identity.iss)"}],
        "patternMatching": {"patterns": [{"predicate": "model.name in auth.identity.models"}]},
    }
    policy = {
        "authentication": {"own": {"apiKey": {}}, "oidc": {"jwt": jwt}, "cluster": review},
        "authorization": {"listed": listed},
        "response": {"success": name},
    }
    auth = {
        "keys": {"file": str(keys)},
        "policy": policy,
        "kubernetes": {"url": known.kube.url},
        "load": [{"predicate": "true"}],  # whoever may call a model may load it
    }
    settings = {"num_cpus": 0.01, "protocols": PROTOCOLS[topology], "auth": auth}
    if topology == "colocated":
        settings["kserve"] = {"repository_api": True}
    return settings


def app(name: str, topology: str, ingress: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the application of a fake engine that can do everything."""
    tasks = ["generate", "embed", "score"]
    return {
        "name": name,
        "route_prefix": None if topology == "runtime" else f"/{name}",
        "import_path": "deployments.fake:app",
        "args": {
            "topology": topology,
            "model": {"id": "engine" if topology == "runtime" else "fake"},
            "fake": {"tasks": tasks, "inputs": {"x": {"shape": [-1]}}},
            "placement": {"num_cpus": 0.01},
            "ingress": ingress or {"num_cpus": 0.01},
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
    authorities: Authorities,
    start_platform: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    content = yaml.safe_load((ROOT / "configs/gateway/serve.yaml").read_text())
    content["grpc_options"]["grpc_servicer_functions"] = SERVICERS
    if plane == "classic":
        del content["controller_options"]
    of = {topology: ingress(topology, keys, authorities) for topology in TOPOLOGIES}
    gateway = {
        "name": "gateway",
        "route_prefix": "/gateway",
        "import_path": "deployments.gateway:app",
        # Two models to the gateway and to the policy, though one application serves both.
        "args": {"models": {"fake": "behind", "other": "behind"}, "ingress": of["gateway"]},
    }
    content["applications"] = [
        app("separate", "separate", of["separate"]),
        app("colocated", "colocated", of["colocated"]),
        gateway,
        app("behind", "runtime"),
    ]
    config = tmp_path_factory.mktemp("config") / "auth.yaml"
    config.write_text(yaml.safe_dump(content))
    assert check(config).errors == []
    return start_platform(config, free_ports=True)
