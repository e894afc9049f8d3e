"""The gRPC request a load repeats, and one exchange of it, timed.

Messages are bytes on both sides: the bench has nothing generated from a proto.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

import grpc

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.samples import FROM_USAGE, Sample

# Nothing of an answer is cut off, and a run shares no connection with the one before.
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What a message says of a generation: its tokens so far, and whether it brings text."""

    tokens: int
    text: bool


Read = Callable[[bytes], Generated]


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcCall:
    """A call of `method` (/package.Service/Method) with one message out of `bodies`.

    Request i sends body i modulo their number. `target` is host:port. `stream`: the answer is a
    stream of messages. `read` (ValueError for what it can't read) says what a message brings; a
    stream needs it, another call without it is only counted.
    """

    target: str
    method: str
    bodies: tuple[bytes, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 300.0
    stream: bool = False
    read: Read | None = None


@asynccontextmanager
async def rpc_exchange(
    call: RpcCall,
) -> AsyncIterator[Callable[[int, float], Awaitable[Sample]]]:
    """Yield what sends request number i and measures it from a moment on, over one connection.

    Never raises for a failed request: the sample says `timeout`, `grpc_<status>`, or `bad_answer`
    for an empty message and for one that tells of no tokens where they are read.
    """
    metadata = tuple(call.metadata.items())
    async with grpc.aio.insecure_channel(call.target, options=_OPTIONS) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
        listen: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(call.method)

        async def exchange(index: int, started_s: float) -> Sample:
            body = call.bodies[index % len(call.bodies)]
            try:
                if call.stream and call.read:
                    messages = listen(body, metadata=metadata, timeout=call.timeout_s)
                    return await _read_stream(messages, call.read, started_s)
                answer = await ask(body, metadata=metadata, timeout=call.timeout_s)
                return _answered(answer, call.read, started_s)
            except grpc.aio.AioRpcError as failure:
                return _failed(_kind(failure.code()), started_s)
            except ValueError:
                return _failed("bad_answer", started_s)

        yield exchange


async def one_message(call: RpcCall) -> bytes:
    """Return what the first message of a call is answered with.

    Raises:
        BenchError: no answer, or an error's status.
    """
    async with grpc.aio.insecure_channel(call.target, options=_OPTIONS) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
        try:
            return await ask(
                call.bodies[0], metadata=tuple(call.metadata.items()), timeout=call.timeout_s
            )
        except grpc.aio.AioRpcError as failure:
            raise BenchError(_kind(failure.code())) from failure


def _answered(answer: bytes, read: Read | None, started_s: float) -> Sample:
    latency_s = perf_counter() - started_s
    if not answer:
        return _failed("bad_answer", started_s)
    return _sample(latency_s, read(answer)) if read else Sample(latency_s=latency_s)


async def _read_stream(messages: AsyncIterable[bytes], read: Read, started_s: float) -> Sample:
    """Time every message but read, as with server-sent events, only up to a text and the last."""
    first_s: float | None = None
    last_s = started_s
    gaps_s: list[float] = []
    events = 0
    message = b""
    async for message in messages:
        now_s = perf_counter()
        events += 1
        if first_s is not None:
            gaps_s.append(now_s - last_s)
        elif read(message).text:
            first_s = now_s
        last_s = now_s
    ttft_s = None if first_s is None else first_s - started_s
    return _sample(
        perf_counter() - started_s,
        read(message),
        ttft_s=ttft_s,
        gaps_s=tuple(gaps_s),
        events=events,
    )


def _sample(
    latency_s: float,
    found: Generated,
    *,
    ttft_s: float | None = None,
    gaps_s: tuple[float, ...] = (),
    events: int = 0,
) -> Sample:
    if not found.tokens:
        return Sample(latency_s=latency_s, error="bad_answer")
    return Sample(
        latency_s=latency_s,
        ttft_s=ttft_s,
        gaps_s=gaps_s,
        events=events,
        output_tokens=found.tokens,
        tokens_from=FROM_USAGE,
    )


def _failed(kind: str, started_s: float) -> Sample:
    return Sample(latency_s=perf_counter() - started_s, error=kind)


def _kind(code: grpc.StatusCode) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "timeout"
    return f"grpc_{code.name.lower()}"
