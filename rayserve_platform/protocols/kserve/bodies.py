"""Bodies: of what type they may be, compressed on the way or not."""

import asyncio
import zlib

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.edge.exchange import Exchange, TooLarge
from rayserve_platform.protocols.kserve.tensors import Buffer, invalid, shown

TYPES = frozenset(
    {
        b"",
        b"application/json",
        b"application/octet-stream",
        b"application/x-www-form-urlencoded",  # curl's own, where nothing else is said
        b"text/plain",
    }
)
"""Content types of a body that may be meant as the protocol's."""
WINDOW = {"gzip": 31, "deflate": 15}
"""zlib's window bits: gzip's header, zlib's header."""
LEVEL = 1
THREAD_BYTES = 65_536
"""From here on zlib takes longer than a change of thread."""


class UnsupportedMedia(PlatformError):
    """A body in a coding or of a type that is not known: 415 on HTTP."""

    def __init__(self, message: str) -> None:
        error = invalid(message, "body")
        super().__init__(error.code, message, param="body")


async def typed(exchange: Exchange) -> bytes:
    """Read a request's body as `read` does, where its type may be one of the protocol's."""
    kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind not in TYPES and not kind.endswith(b"+json"):
        raise UnsupportedMedia(
            f"Content-Type '{shown(kind.decode('latin-1'))}' is not supported; "
            "use application/json or application/octet-stream."
        )
    return await read(exchange)


def header_length(declared: bytes, size: int) -> int:
    """Return the length of a body's JSON, of which its header says `declared`."""
    if not declared.isdigit() or len(declared) > 15 or int(declared) > size:
        raise invalid(
            "Inference-Header-Content-Length must be the length of the JSON, from 0 to the "
            f"body's {size} bytes, got '{shown(declared.decode('latin-1'))}'.",
            "body",
        )
    return int(declared)


async def read(exchange: Exchange) -> bytes:
    """Read a request's body, and unpack it.

    Raises:
        PlatformError: INVALID_ARGUMENT when it is larger than the limit, unpacked as well, or not
            what its header says.
    """
    body = await exchange.body()
    coding = exchange.headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in WINDOW:
        raise UnsupportedMedia(
            f"Content-Encoding '{shown(coding)}' is not supported; use gzip or deflate."
        )
    if len(body) < THREAD_BYTES:
        return _unpack(coding, body, exchange.max_body_bytes)
    return await asyncio.to_thread(_unpack, coding, body, exchange.max_body_bytes)


def _unpack(coding: str, body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=WINDOW[coding])
    try:
        found = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise invalid(f"The request body is not valid {coding}.", "body") from None
    if len(found) > limit:
        raise TooLarge(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise invalid(f"The request body is not valid {coding}: it ends too soon or late.", "body")
    return found


def wanted(exchange: Exchange) -> str | None:
    """Return the coding that a client asks for.

    Only one that it names alone: most HTTP libraries offer several without being asked, and tensors
    cost more to pack than to send.
    """
    accepted = exchange.headers.get(b"accept-encoding", b"").decode("latin-1").strip().lower()
    return accepted if accepted in WINDOW else None


async def pack(coding: str, body: Buffer) -> bytes:
    """Compress an answer."""
    if len(body) < THREAD_BYTES:
        return _pack(coding, body)
    return await asyncio.to_thread(_pack, coding, body)


def _pack(coding: str, body: Buffer) -> bytes:
    packer = zlib.compressobj(level=LEVEL, wbits=WINDOW[coding])
    return packer.compress(body) + packer.flush()
