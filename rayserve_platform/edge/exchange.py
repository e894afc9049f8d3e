"""One HTTP request and its answer, and what its failure is in HTTP's words."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.runtime import Receive, Scope, Send
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.gate import Session
from rayserve_platform.edge.observe import Record
from rayserve_platform.edge.quotas.meter import RequestMeter

Headers = list[tuple[bytes, bytes]]

DRAIN_S = 2.0
"""How long a refusal waits for the end of a body: as long as a MiB takes at 4 Mbit/s."""
MAX_DRAINS = 64
"""At a time; beyond these a refusal is answered at once."""

_DRAINS = asyncio.Semaphore(MAX_DRAINS)  # never waited for

STATUS: dict[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.DEADLINE_EXCEEDED: 504,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}


class TooLarge(PlatformError):
    """A request body over the limit: 413 on HTTP."""

    def __init__(self, limit_bytes: int) -> None:
        limit = f"{limit_bytes / 2**20:g} MiB"
        super().__init__(
            Code.INVALID_ARGUMENT, f"The request body is larger than {limit}.", param="body"
        )


def status_of(error: PlatformError) -> int:
    """Return the HTTP status of an error, where the protocol does not override it."""
    if isinstance(error, Denial) and error.status is not None:
        return error.status
    return 413 if isinstance(error, TooLarge) else STATUS[error.code]


class ClientGone(Exception):
    """The client closed its connection before the answer was complete."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One HTTP request and its answer.

    Args:
        request_id: the client's own `x-request-id` if it sent a fit one, else a new one.
        headers: what the client sent, without what only the platform may set and, where tokens are
            checked, without credentials.
        sent: the scope with all that the client sent, for the check of tokens alone.
        started: whether the response's head has gone out.
        is_read: whether the whole body has been read.
        session: who asks, and what they may do, where tokens are checked.
    """

    scope: Scope
    receive: Receive
    send: Send
    record: Record
    max_body_bytes: int
    headers: dict[bytes, bytes] = field(default_factory=dict)
    sent: Scope = field(default_factory=dict)
    started: bool = False
    is_read: bool = False
    session: Session | None = None
    meter: RequestMeter | None = None

    @property
    def engine_headers(self) -> Headers:
        """What the policy adds for the engine, now that the model is known."""
        if self.session is None:
            return []
        added = self.session.principal.headers
        return [(name.encode(), value.encode()) for name, value in added]

    @property
    def request_id(self) -> str:
        """The id in logs, errors and the response's `x-request-id`."""
        return self.record.request_id

    @property
    def path(self) -> str:
        """The path below the application's route prefix."""
        path: str = self.scope["path"]
        return path.removeprefix(self.scope.get("root_path", "").rstrip("/"))

    async def body(self) -> bytes:
        """Read the whole request body.

        Raises:
            PlatformError: INVALID_ARGUMENT when it is larger than the limit.
            ClientGone: when the client leaves meanwhile.
        """
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            raise TooLarge(self.max_body_bytes)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > self.max_body_bytes:
                raise TooLarge(self.max_body_bytes)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def drain(self) -> None:
        """Read a body that nobody wants to its end, if that comes soon.

        Answered before, a proxy has to break off the request, and some clients of HTTP/2 then see a
        broken stream in place of the answer (curl's error 92, behind HAProxy).
        """
        declared = self.headers.get(b"content-length", b"0")
        is_short = declared.isdigit() and 0 < int(declared) <= self.max_body_bytes
        # A client that waits to be told to go on (RFC 9110, 10.1.1) need not be.
        if self.is_read or b"expect" in self.headers or _DRAINS.locked():
            return
        if is_short or b"transfer-encoding" in self.headers:
            left = self.max_body_bytes
            with suppress(TimeoutError):
                async with _DRAINS, asyncio.timeout(DRAIN_S):
                    while left > 0:
                        message = await self.receive()
                        if not message.get("more_body", False):
                            return
                        left -= len(message.get("body", b""))

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the response's head."""
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the response's body."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def json(
        self, status: int, content: Any, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send a whole JSON response."""
        await self.bytes(status, orjson.dumps(content), b"application/json", headers)

    async def bytes(
        self,
        status: int,
        body: bytes,
        content_type: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send a whole response."""
        head = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
        await self.start(status, head)
        await self.write(body, more=False)
