"""Answers as server-sent events, framed as the original's server does (sse-starlette).

A stream is a 200 from the start; whatever goes wrong then is an event of its own, and the last one.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from rayserve_platform.core.errors import PlatformError, internal_error
from rayserve_platform.core.messages import Chunk
from rayserve_platform.core.stream import Coalescer
from rayserve_platform.edge.exchange import Exchange
from rayserve_platform.protocols.caikit.render import dumps, piece

log = logging.getLogger("rayserve.edge")

Chunks = AsyncGenerator[Sequence[Chunk], None]

HEAD = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
PING_S = 15.0
"""The original's: connections with nothing on them are closed by proxies after a while."""


async def send(
    exchange: Exchange, chunks: Chunks, failure: Callable[[PlatformError], Any], ping_s: float
) -> None:
    """Write a stream of chunks; what is ready together is written together.

    Args:
        exchange: where to; nothing has been written yet.
        chunks: what to write. It is closed when the client goes away.
        failure: makes the content of the event for an error.
        ping_s: after so many seconds without an event there is a comment.
    """
    await exchange.start(200, HEAD)
    closing = b""
    try:
        source = _Source(chunks, ping_s)
        async with aclosing(source.batches()) as batches:
            async for batch in batches:
                await exchange.write(batch, more=True)
    except Exception as raised:  # noqa: BLE001  # whatever it is, `_known` logs it
        error = _known(exchange, raised)
        exchange.record.code = f"200/{error.code.value}"
        closing = event(b"error", failure(error))
    await exchange.write(closing, more=False)


def _known(exchange: Exchange, raised: Exception) -> PlatformError:
    """Return an error whose text the caller may read; the log has the other."""
    if isinstance(raised, PlatformError):
        return raised
    log.error("request %s failed in its stream", exchange.request_id, exc_info=raised)
    return internal_error()


def event(kind: bytes, content: Any) -> bytes:
    """Frame one event."""
    return b"event: %b\r\ndata: %b\r\n\r\n" % (kind, dumps(content))


def ping() -> bytes:
    """Return a comment, which clients leave out."""
    return f": ping - {datetime.now(UTC)}\r\n\r\n".encode()


class _Source:
    """Chunks as the bytes of their events, with a comment where they are long in coming."""

    def __init__(self, chunks: Chunks, ping_s: float) -> None:
        self._chunks = chunks
        self._ping_s = ping_s
        self._pieces = Coalescer[bytes]()
        self._last = time.monotonic()

    async def batches(self) -> AsyncGenerator[bytes, None]:
        """Yield what is ready."""
        async with aclosing(self._pieces.batches(self._produce())) as batches:
            async for batch in batches:
                yield b"".join(batch)

    async def _produce(self) -> None:
        pinging = asyncio.create_task(self._ping())
        try:
            async with aclosing(self._chunks) as chunks:
                async for some in chunks:
                    self._last = time.monotonic()
                    await self._pieces.put(b"".join(event(b"message", piece(one)) for one in some))
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)

    async def _ping(self) -> None:
        while True:
            left_s = self._last + self._ping_s - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)
                continue
            self._last = time.monotonic()
            await self._pieces.put(ping())
