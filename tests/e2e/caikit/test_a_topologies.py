"""Stock clients in every topology, on both data planes: no proto files, no Serve metadata."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MODEL = "fake-embedder"
NLP = "caikit.runtime.Nlp.NlpService"
TOPOLOGIES = ("colocated", "separate", "gateway")
CLIENT = Path(__file__).with_name("stock_client.py")

REFLECTION_V1 = """
import sys, grpc
from rayserve_platform.pb import reflection_pb2 as pb, reflection_pb2_grpc as rpc
stub = rpc.ServerReflectionStub(grpc.insecure_channel(sys.argv[1]))
asked = iter([pb.ServerReflectionRequest(list_services=""),
              pb.ServerReflectionRequest(file_containing_symbol=sys.argv[2])])
for answer in stub.ServerReflectionInfo(asked, timeout=30):
    print([s.name for s in answer.list_services_response.service]
          or len(answer.file_descriptor_response.file_descriptor_proto))
"""


def _grpcurl(platform: Any, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["grpcurl", "-plaintext", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=platform.env,
    )


def _python(platform: Any, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=platform.env,
        cwd=Path(__file__).parents[3],
    )


def _until_deployed(platform: Any, topology: str) -> None:
    """Wait until the replicas are those of this topology, and answer."""
    wanted = {
        "colocated": {"app:Ingress"},
        "separate": {"app:Ingress", "app:Runtime"},
        "gateway": {"app:Ingress", "model:Runtime"},
    }
    deadline = time.monotonic() + 120
    while True:
        names = [name for name in platform.processes().values() if "ServeReplica:" in name]
        found = {name.split("ServeReplica:")[1].split()[0] for name in names}
        if found == wanted[topology] and len(names) == len(found):
            break
        assert time.monotonic() < deadline, names
        time.sleep(0.5)
    while _grpcurl(platform, platform.grpc, "grpc.health.v1.Health/Check").returncode:
        assert time.monotonic() < deadline, "the new version does not serve"
        time.sleep(0.5)


@pytest.fixture(scope="module", params=TOPOLOGIES)
def deployed(request: pytest.FixtureRequest, fake_platform: Any, applications: Any) -> Any:
    """The platform in one topology, where a redeploy under traffic has lost no call."""
    content = {"applications": applications(request.param)}
    fake_platform.deploy(lambda whole: whole.update(content))
    _until_deployed(fake_platform, request.param)
    arguments = [str(CLIENT), fake_platform.grpc, MODEL, "15"]
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=fake_platform.env,
        cwd=Path(__file__).parents[3],
    ) as traffic:
        for app in content["applications"]:
            app["args"]["ingress"]["docs"] = False
            if "fake" in app["args"]:
                app["args"]["fake"]["max_model_len"] = 4000
        fake_platform.deploy(lambda whole: whole.update(content))
        printed, _ = traffic.communicate(timeout=90)
    assert "failed" not in printed, printed
    assert int(printed.rsplit("served: ", 1)[1]) > 20
    # A gateway asks again what a model is like after some seconds only.
    deadline = time.monotonic() + 60
    while _longest(fake_platform) != 4000:
        assert time.monotonic() < deadline, "the new version does not serve"
        time.sleep(1)
    assert httpx.get(f"{fake_platform.url}/docs").status_code == 404
    return fake_platform


def _longest(platform: Any) -> int:
    [model] = httpx.get(f"{platform.url}/info/models").json()["models"]
    return int(model["metadata"]["max_seq_length"])


def test_grpcurl_embeds_by_reflection_alone(deployed: Any) -> None:
    done = _grpcurl(
        deployed, "-d", '{"text": "hello"}', "-H", f"mm-model-id: {MODEL}", deployed.grpc,
        f"{NLP}/EmbeddingTaskPredict",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["result"]["data_npfloat32sequence"]["values"]) == 8
    assert answer["input_token_count"] == "5"


def test_reflection_lists_the_services_in_both_versions(deployed: Any) -> None:
    listed = _grpcurl(deployed, deployed.grpc, "list")
    assert {NLP, "caikit.runtime.info.InfoService", "grpc.health.v1.Health"} <= set(
        listed.stdout.split()
    ), listed.stderr
    newer = _python(deployed, "-c", REFLECTION_V1, deployed.grpc, NLP)
    services, descriptors = newer.stdout.splitlines()
    assert NLP in services
    assert "grpc.reflection.v1.ServerReflection" in services
    assert int(descriptors) >= 1


@pytest.mark.parametrize(
    ("headers", "code", "details"),
    [
        ((), "InvalidArgument", "Missing required model ID"),
        (("-H", "mm-model-id: nope"), "NotFound", "Model 'nope' not loaded"),
    ],
)
def test_a_callers_mistake_has_caikits_words(
    deployed: Any, headers: tuple[str, ...], code: str, details: str
) -> None:
    done = _grpcurl(
        deployed, "-d", '{"text": "x"}', *headers, deployed.grpc, f"{NLP}/EmbeddingTaskPredict"
    )
    assert f"Code: {code}" in done.stderr
    assert f"Message: {details}" in done.stderr


def test_a_stream_that_cannot_begin_has_a_status(deployed: Any) -> None:
    done = _grpcurl(
        deployed, "-d", '{"text": "x"}', "-H", f"mm-model-id: {MODEL}", deployed.grpc,
        f"{NLP}/ServerStreamingTextGenerationTaskPredict",
    )  # fmt: skip
    assert "Code: InvalidArgument" in done.stderr
    assert "Traceback" not in done.stderr


def test_rest_answers_beside_grpc(deployed: Any, client: httpx.Client) -> None:
    body = {"model_id": MODEL, "inputs": "hello"}
    answer = client.post(f"{deployed.url}/api/v1/task/embedding", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["result"]["data"]["values"]) == 8
    listed = client.get(f"{deployed.url}/info/models").json()["models"]
    assert [(model["name"], model["loaded"]) for model in listed] == [(MODEL, True)]
    openai = client.post(f"{deployed.url}/v1/embeddings", json={"input": "hello"})
    assert openai.status_code == 200, openai.text


def test_health_over_grpc_and_http(deployed: Any, client: httpx.Client) -> None:
    done = _grpcurl(deployed, deployed.grpc, "grpc.health.v1.Health/Check")
    assert json.loads(done.stdout) == {"status": "SERVING"}
    assert client.get(f"{deployed.url}/health").text == "OK"
