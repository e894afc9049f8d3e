"""The unary gRPC request a load repeats, and one exchange of it, timed.

Messages are bytes on both sides: the bench has nothing generated from a proto.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

import grpc

from rayserve_platform.bench.samples import Sample

# Nothing of an answer is cut off, and a run shares no connection with the one before.
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcCall:
    """A unary call of `method` (/package.Service/Method) with one message out of `bodies`.

    Request i sends body i modulo their number. `target` is host:port.
    """

    target: str
    method: str
    bodies: tuple[bytes, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 300.0


@asynccontextmanager
async def rpc_exchange(
    call: RpcCall,
) -> AsyncIterator[Callable[[int, float], Awaitable[Sample]]]:
    """Yield what sends request number i and measures it from a moment on, over one connection.

    Never raises for a failed request: the sample says `timeout`, `grpc_<status>`, or `bad_answer`
    for an empty message.
    """
    metadata = tuple(call.metadata.items())
    async with grpc.aio.insecure_channel(call.target, options=_OPTIONS) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)

        async def exchange(index: int, started_s: float) -> Sample:
            body = call.bodies[index % len(call.bodies)]
            error = None
            try:
                answer = await ask(body, metadata=metadata, timeout=call.timeout_s)
                error = None if answer else "bad_answer"
            except grpc.aio.AioRpcError as failure:
                error = _kind(failure.code())
            return Sample(latency_s=perf_counter() - started_s, error=error)

        yield exchange


def _kind(code: grpc.StatusCode) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "timeout"
    return f"grpc_{code.name.lower()}"


def repeated_strings(texts: Sequence[str]) -> bytes:
    """Return a protobuf message whose field 1 is these strings, be it repeated or (for one) not."""
    encoded = (text.encode() for text in texts)
    # 0x0a: field 1, length-delimited.
    return b"".join(b"\x0a" + _varint(len(value)) + value for value in encoded)


def _varint(value: int) -> bytes:
    """Return an unsigned integer as protobuf writes it: seven bits a byte, the lowest first."""
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)
