"""Quotas and the audit log in a real cluster, in each topology on both of Ray's data planes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml

from rayserve_platform.pb import generation_pb2 as fmaas
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from rayserve_platform.serving.check import check

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[3]
TOPOLOGIES = ("separate", "colocated")
BODY = {"model": "fake", "prompt": "hi", "max_tokens": 2}


def app(topology: str, folder: Path) -> dict[str, Any]:
    ingress = {
        "num_cpus": 0.01,
        "protocols": ["openai", "tgis"],
        "auth": {"keys": {"file": str(folder / "keys.json")}},
        "quotas": {"rules": [{"name": "all", "requests": ["2/day"]}]},
        "audit": {"file": str(folder / f"{topology}.jsonl")},
    }
    return {
        "name": topology,
        "route_prefix": f"/{topology}",
        "import_path": "deployments.fake:app",
        "args": {
            "topology": topology,
            "model": {"id": "fake"},
            "placement": {"num_cpus": 0.01},
            "ingress": ingress,
        },
    }


def make_key(folder: Path, principal: str) -> str:
    command = [sys.executable, "-m", "rayserve_platform.cli", "keys", "create"]
    command += ["--file", str(folder / "keys.json"), "--principal", principal]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quotas")


@pytest.fixture(scope="module", params=["haproxy", "classic"])
def plane(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def keys(plane: str, folder: Path) -> dict[str, str]:
    return {who: make_key(folder, f"{who}-{plane}") for who in ("alice", "bob")}


@pytest.fixture(scope="module")
def platform(
    plane: str, folder: Path, keys: dict[str, str], start_platform: Callable[..., Any]
) -> Any:
    content = yaml.safe_load((ROOT / "configs/gateway/serve.yaml").read_text())
    content["grpc_options"]["grpc_servicer_functions"] = [
        "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
        "rayserve_platform.pb.generation_pb2_grpc.add_GenerationServiceServicer_to_server",
    ]
    if plane == "classic":
        del content["controller_options"]
    content["applications"] = [app(topology, folder) for topology in TOPOLOGIES]
    config = folder / f"{plane}.yaml"
    config.write_text(yaml.safe_dump(content))
    assert check(config).errors == []
    return start_platform(config, free_ports=True)


@pytest.fixture
def http(platform: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_both_transports_share_a_count_and_tell_what_is_left(
    platform: Any, http: httpx.Client, keys: dict[str, str], folder: Path, topology: str
) -> None:
    path, headers = f"/{topology}/v1/completions", {"authorization": f"Bearer {keys['alice']}"}
    first = http.post(path, json=BODY, headers=headers)
    assert first.status_code == 200, first.text
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    metadata = [("application", topology), *headers.items()]
    batch = fmaas.BatchedGenerationRequest(requests=[fmaas.GenerationRequest(text="hi")])
    single = fmaas.SingleGenerationRequest(request=fmaas.GenerationRequest(text="hi"))
    with grpc.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)
        answered, call = stub.Generate.with_call(batch, metadata=metadata, timeout=60)
        assert answered.responses[0].text
        assert ("x-ratelimit-remaining-requests", "0") in [*call.trailing_metadata()]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Generate(batch, metadata=metadata, timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        told: list[Any] = [*caught.value.trailing_metadata()]
        trailing = dict(told)
        assert trailing["x-ratelimit-limit-requests"] == "2"
        assert int(trailing["retry-after"]) >= 1
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.GenerateStream(single, metadata=metadata, timeout=60))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 requests per day" in str(caught.value.details())
    for body in (BODY, {**BODY, "stream": True}):
        refused = http.post(path, json=body, headers=headers)
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    bob = {"authorization": f"Bearer {keys['bob']}"}
    assert http.post(path, json=BODY, headers=bob).status_code == 200

    lines = [json.loads(line) for line in (folder / f"{topology}.jsonl").read_text().splitlines()]
    own = [line for line in lines if line["key_id"] == keys["alice"].split("_")[1]]
    assert [line["decision"] for line in own] == ["allow"] * 2 + ["deny"] * 4
    assert {line["rule"] for line in own[2:]} == {"all/requests"}
    usage = first.json()["usage"]
    assert (own[0]["prompt_tokens"], own[0]["generated_tokens"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
