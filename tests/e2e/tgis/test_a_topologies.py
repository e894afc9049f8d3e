"""What only a real Ray shows of TGIS's API: its gRPC servers, cancelling, deadlines, limits."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
TOPOLOGIES = ("separate", "colocated", "gateway")
TIMEOUT_S = 60


def batch(*texts: str, new: int = 5, **fields: Any) -> pb.BatchedGenerationRequest:
    return pb.BatchedGenerationRequest(
        requests=[pb.GenerationRequest(text=text) for text in texts],
        params=pb.Parameters(stopping=pb.StoppingCriteria(max_new_tokens=new, min_new_tokens=new)),
        **fields,
    )


def single(text: str, new: int = 5) -> pb.SingleGenerationRequest:
    asked = batch(text, new=new)
    return pb.SingleGenerationRequest(request=asked.requests[0], params=asked.params)


def options(app: str, **more: Any) -> dict[str, Any]:
    """Name the application: there are several, as only tests have them."""
    return {"metadata": (("application", app),), "timeout": TIMEOUT_S, **more}


async def refused(sending: Any) -> grpc.aio.AioRpcError:
    """Return the error that a call ends with, or a stream begins with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (anext(aiter(sending)) if hasattr(sending, "__aiter__") else sending)
    return caught.value


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_a_stream_adds_up_to_the_whole_answer(platform: Any, topology: str) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)
        whole = await stub.Generate(batch("Once", "Twice"), **options(topology))
        assert [one.generated_token_count for one in whole.responses] == [5, 5]
        stream = stub.GenerateStream(single("Once"), **options(topology))
        first, *pieces = [message async for message in stream]
        assert first == pb.GenerationResponse(input_token_count=4)
        assert "".join(piece.text for piece in pieces) == whole.responses[0].text
        assert pieces[-1].stop_reason == pb.MAX_TOKENS


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_mistakes_come_with_their_status_and_words(platform: Any, topology: str) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)
        told = options(topology)
        for sending in (
            stub.Generate(batch("a", new=1025), **told),
            stub.GenerateStream(single("a", new=1025), **told),
        ):
            error = await refused(sending)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details() == "max_new_tokens must be <= 1024"
        error = await refused(stub.Generate(batch("a" * 5000), **told))
        assert error.details() == "input tokens (5000) plus prefix length (0) must be < 4096"
        error = await refused(stub.Generate(batch("a", adapter_id="missing"), **told))
        assert error.details() == (
            "can't retrieve adapter with id 'missing': directory does not exist"
        )


async def test_overload_is_told(platform: Any) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        error = await refused(
            GenerationServiceStub(channel).Generate(batch("a", "b"), **options("tight"))
        )
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "Model is overloaded"


@pytest.mark.parametrize("topology", ["separate", "colocated"])
async def test_what_a_client_leaves_gives_its_place_back(platform: Any, topology: str) -> None:
    """The gauge of prompts with the engine falls when a stream is cancelled or out of time."""
    async with grpc.aio.insecure_channel(platform.grpc) as channel, httpx.AsyncClient() as http:

        async def running() -> float:
            answer = await http.get(f"{platform.url}/{topology}/metrics")
            [line] = [
                line for line in answer.text.splitlines() if line.startswith("tgi_batch_current_")
            ]
            return float(line.split()[-1])

        async def until(count: int) -> None:
            async with asyncio.timeout(30):
                while await running() != count:  # noqa: ASYNC110  # it is in another process
                    await asyncio.sleep(0.1)

        stub = GenerationServiceStub(channel)
        stream = stub.GenerateStream(single("a", new=1000), **options(topology))
        await anext(aiter(stream))
        await until(1)
        stream.cancel()
        await until(0)
        error = await refused(stub.Generate(batch("a", new=1000), **options(topology, timeout=1)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(0)


async def test_what_the_server_does_not_know_or_take(platform: Any) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        kinds: Any = {"request_serializer": bytes, "response_deserializer": bytes}
        for path in ("/fmaas.GenerationService/Nope", "/fmaas.Nope/Generate"):
            send = channel.unary_unary(path, **kinds)
            error = await refused(send(b"", **options("separate")))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        stub = GenerationServiceStub(channel)
        error = await refused(stub.Generate(batch("x" * (4 * 2**20 + 1)), **options("separate")))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (error.details() or "").startswith("SERVER: Received message larger than max (")


async def test_health_and_both_versions_of_reflection(platform: Any) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "fmaas.GenerationService"):
            request = health_pb2.HealthCheckRequest(service=name)
            answer = await stub.Check(request, **options("separate"))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for version in ("v1", "v1alpha"):
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            kinds: Any = {"request_serializer": bytes, "response_deserializer": bytes}
            stream = channel.stream_stream(path, **kinds)
            # Field 7, list_services, of ServerReflectionRequest.
            asked = stream(iter([b"\x3a\x01\x2a"]), **options("separate"))
            assert b"fmaas.GenerationService" in await anext(aiter(asked))


def test_http_has_health_and_metrics(platform: Any, client: httpx.Client) -> None:
    assert client.get(f"{platform.url}/separate/health").status_code == 200
    text = client.get(f"{platform.url}/separate/metrics").text
    assert "tgi_request_success{" in text
    assert client.get(f"{platform.url}/separate/v1/models").status_code == 404


@pytest.mark.parametrize("proto", [("-proto", "protos/generation.proto"), ()])
def test_grpcurl_generates(platform: Any, proto: tuple[str, ...]) -> None:
    command = [
        *("grpcurl", "-plaintext", *proto, "-H", "application: separate"),
        *("-d", '{"requests": [{"text": "Once"}]}'),
        *(platform.grpc, "fmaas.GenerationService/Generate"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=platform.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["responses"]) == 1
