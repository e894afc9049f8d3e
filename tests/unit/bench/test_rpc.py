import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from rayserve_platform.bench.load import Closed, run_load
from rayserve_platform.bench.rpc import RpcCall, repeated_strings
from rayserve_platform.bench.server import free_port

METHOD = "/any.Service/Method"
FOUR = Closed(concurrency=2, requests=4)


class Service(grpc.GenericRpcHandler):
    """Answers by the message: `good`, `empty`, `full`, `hangs`; keeps what it got."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, dict]] = []
        self.release = asyncio.Event()

    def service(self, details):
        async def answer(message: bytes, context) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.asked.append((details.method, message, metadata))
            if message == b"full":
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            if message == b"hangs":
                await self.release.wait()
            return b"" if message == b"empty" else b"answer"

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, str]]:
    """The service and its address."""
    handler = Service()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield handler, f"127.0.0.1:{port}"
    handler.release.set()
    await server.stop(None)


def call_to(target: str, *bodies: bytes, timeout_s: float = 30.0) -> RpcCall:
    return RpcCall(
        target=target, method=METHOD, bodies=bodies, metadata={"mm-model-id": "m"},
        timeout_s=timeout_s,
    )  # fmt: skip


async def test_requests_take_turns_with_the_messages_and_carry_the_metadata(service):
    handler, target = service
    result = await run_load(call_to(target, b"one", b"two"), Closed(concurrency=1, requests=3))
    assert (result.succeeded, result.errors, result.driver) == (3, {}, "grpc.aio")
    assert result.latency_p50_s is not None
    assert [message for _, message, _ in handler.asked] == [b"one", b"two", b"one"]
    method, _, metadata = handler.asked[0]
    assert (method, metadata["mm-model-id"]) == (METHOD, "m")


@pytest.mark.parametrize(
    ("message", "kind"), [(b"full", "grpc_resource_exhausted"), (b"empty", "bad_answer")]
)
async def test_failures_are_counted_by_kind(service, message: bytes, kind: str):
    _, target = service
    result = await run_load(call_to(target, message), FOUR)
    assert (result.succeeded, dict(result.errors)) == (0, {kind: 4})


async def test_service_that_hangs_is_a_timeout(service):
    _, target = service
    result = await run_load(call_to(target, b"hangs", timeout_s=0.2), FOUR)
    assert dict(result.errors) == {"timeout": 4}


async def test_service_that_is_not_there_is_unavailable():
    result = await run_load(call_to(f"127.0.0.1:{free_port()}", b"good"), FOUR)
    assert dict(result.errors) == {"grpc_unavailable": 4}


@pytest.mark.parametrize("texts", [["one"], ["", "zwölf", "x" * 127, "y" * 128, "z" * 70_000]])
def test_strings_are_written_as_protobuf_writes_field_1(texts: list[str]):
    assert repeated_strings(texts) == FieldMask(paths=texts).SerializeToString()
