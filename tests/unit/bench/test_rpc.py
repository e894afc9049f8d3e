import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from time import perf_counter

import grpc
import pytest

from rayserve_platform.bench.load import Closed, run_load
from rayserve_platform.bench.ports import free_port
from rayserve_platform.bench.protobuf import field, fields
from rayserve_platform.bench.rpc import Generated, RpcCall, rpc_exchange

METHOD = "/any.Service/Method"
FOUR = Closed(concurrency=2, requests=4)
# A stream's first message tells of the input only.
ANSWERS = {
    b"empty": [b""],
    b"garbled": [b"\x0a\xff"],
    b"no tokens": [field(2, "text")],
    b"counts": [field(1, 3) + field(2, "text")],
    b"streams": [b"\x18\x09", *(field(1, count) + field(2, "text") for count in (1, 2, 3))],
    b"breaks": [field(1, 1) + field(2, "text")],
}


class Service(grpc.GenericRpcHandler):
    """Answers by the message: `full` and `hangs`, else what `ANSWERS` has; keeps what it got.

    On the wire an answer is a stream of one message.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, dict]] = []
        self.release = asyncio.Event()

    def service(self, details):
        async def answer(message: bytes, context) -> AsyncIterator[bytes]:
            metadata = dict(context.invocation_metadata())
            self.asked.append((details.method, message, metadata))
            if message == b"full":
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            if message == b"hangs":
                await self.release.wait()
            for piece in ANSWERS.get(message, [b"answer"]):
                yield piece
            if message == b"breaks":
                await context.abort(grpc.StatusCode.INTERNAL, "broken")

        return grpc.unary_stream_rpc_method_handler(answer)


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


def read(message: bytes) -> Generated:
    """Field 1 is the number of tokens so far, field 2 the text."""
    found = fields(message)
    return Generated(tokens=int(found.get(1, 0)), text=2 in found)


async def test_an_answer_says_its_own_tokens(service):
    _, target = service
    call = replace(call_to(target, b"counts"), read=read)
    result = await run_load(call, FOUR)
    assert (result.succeeded, result.tokens_from, result.ttft_p50_s) == (4, "usage", None)
    assert result.output_tokens_per_s == pytest.approx(4 * 3 / result.elapsed_s)


async def test_a_stream_counts_messages_and_takes_the_last_ones_tokens(service):
    _, target = service
    call = replace(call_to(target, b"streams"), stream=True, read=read)
    async with rpc_exchange(call) as exchange:
        sample = await exchange(0, perf_counter())
    # The message before the first text is no gap: it is part of the time to the first token.
    assert (sample.error, sample.events, len(sample.gaps_s)) == (None, 4, 2)
    assert (sample.output_tokens, sample.tokens_from) == (3, "usage")
    assert sample.ttft_s is not None
    assert sample.ttft_s + sum(sample.gaps_s) <= sample.latency_s


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (b"full", "grpc_resource_exhausted"),
        (b"empty", "bad_answer"),
        (b"garbled", "bad_answer"),
        (b"no tokens", "bad_answer"),
        (b"breaks", "grpc_internal"),
    ],
)
async def test_answers_that_do_not_say_their_tokens_are_failures(
    service, message: bytes, kind: str, *, stream: bool
):
    _, target = service
    call = replace(call_to(target, message), stream=stream, read=read)
    result = await run_load(call, FOUR)
    assert (result.succeeded, dict(result.errors)) == (0, {kind: 4})
