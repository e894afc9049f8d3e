"""The HTTP edge: everything that happens to a request before and after its protocol sees it.

A protocol is an ASGI-like application that gets an `Exchange`; it may raise `PlatformError` at any
moment. Before the first byte that becomes a status in the protocol's own error shape; after it, the
protocol has ended its stream with its own in-band error event (`Exchange.started` tells).
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Protocol

from rayserve_platform.core.errors import Code, PlatformError, Refusal, internal_error
from rayserve_platform.core.principal import ACCESS
from rayserve_platform.core.runtime import Message, Receive, Scope, Send
from rayserve_platform.edge.accounts import Accounts
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.gate import Gate, Unlimited, entering, note
from rayserve_platform.edge.auth.http import OPEN, credentials_of, request_of, stripped
from rayserve_platform.edge.exchange import ClientGone, Exchange, Headers, TooLarge
from rayserve_platform.edge.limits import Admission
from rayserve_platform.edge.observe import Record, finish, in_progress, request_id
from rayserve_platform.edge.shape import check_headers, check_path
from rayserve_platform.settings.app import Ingress

log = logging.getLogger("rayserve.edge")

CLIENT_CLOSED_REQUEST = 499


class HttpProtocol(Protocol):
    """A wire API over HTTP, as the edge sees it."""

    name: str
    exempt: frozenset[str]
    """Paths that are answered whatever the load: probes."""
    probes: frozenset[str]
    """Paths of liveness and readiness: answered to everybody, token or not."""

    def claims(self, path: str) -> bool:
        """Say whether a path is one of the protocol's own."""
        ...

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request; raise `PlatformError` before the first byte."""
        ...

    def error(self, error: PlatformError, request_id: str) -> tuple[int, Headers, bytes]:
        """Render an error in the protocol's own shape: status, content headers, body."""
        ...


class HttpEdge:
    """The ASGI application of an ingress replica.

    Args:
        protocols: what it speaks. A path is answered by the first protocol that claims it, and by
            the first of all where none does.
        gate: lets requests in; without one everybody may call everything.
        accounts: of what is used; without any nothing is counted.
        echo_request_id: add `x-request-id` to responses. Off under Serve, whose own middleware
            does it for every HTTP server it starts.
    """

    def __init__(
        self,
        protocols: Sequence[HttpProtocol],
        settings: Ingress,
        admission: Admission | None = None,
        *,
        gate: Gate | None = None,
        accounts: Accounts | None = None,
        echo_request_id: bool = True,
    ) -> None:
        self._protocols = tuple(protocols)
        self._gate = gate
        self._accounts = accounts or Accounts()
        public = settings.auth.public if settings.auth is not None else ()
        self._open = frozenset(path for name in public for path in OPEN[name])
        self._settings = settings
        self._admission = admission or Admission(settings.limits)
        self._max_body_bytes = int(settings.limits.max_body_mib * 2**20)
        self._echo = echo_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        protocol, exchange = self._exchange(scope, receive, send)
        running = in_progress(protocol.name)
        running.inc()
        began = time.monotonic()
        try:
            await self._answer(protocol, exchange)
        finally:
            running.dec()
            duration_s = time.monotonic() - began
            finish(exchange.record, duration_s=duration_s, access_log=self._settings.access_log)
            if exchange.path not in protocol.exempt or exchange.record.refused_by:
                self._accounts.settle(exchange.record, duration_s=duration_s)

    def _exchange(
        self, scope: Scope, receive: Receive, send: Send
    ) -> tuple[HttpProtocol, Exchange]:
        sent = scope
        scope = stripped(scope, None if self._gate is None else self._gate.guard)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        record = Record(protocol="", request_id=request_id(headers.get(b"x-request-id")))
        exchange = Exchange(
            scope=scope,
            receive=receive,
            send=send,
            record=record,
            max_body_bytes=self._max_body_bytes,
            headers=headers,
            sent=sent,
        )

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                if exchange.session is not None and message["status"] < 400:
                    await exchange.session.settle()
                exchange.started = True
                record.code = message["status"]
                own = [(b"x-request-id", record.request_id.encode())] if self._echo else []
                if exchange.meter is not None:
                    own += _encoded(exchange.meter.headers)
                if own:
                    # Never added to the sender's own list, which it may use again.
                    message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        async def watched_receive() -> Message:
            message = await receive()
            exchange.is_read = not message.get("more_body", False)
            return message

        exchange.send, exchange.receive = watched_send, watched_receive
        path = exchange.path
        protocol = next((p for p in self._protocols if p.claims(path)), self._protocols[0])
        record.protocol = protocol.name
        return protocol, exchange

    async def _answer(self, protocol: HttpProtocol, exchange: Exchange) -> None:
        """Run the protocol and turn whatever it raises into an answer."""
        try:
            with entering(exchange.record) if self._gate else nullcontext():
                check_headers(exchange.sent)
            if self._gate is not None:
                await self._enter(self._gate, protocol, exchange)
            check_path(exchange.sent)
            if exchange.path in protocol.exempt:
                return await protocol.handle(exchange)
            with self._admission.permit(), self._accounts.metered(exchange.record) as meter:
                exchange.meter = meter
                await protocol.handle(exchange)
        except PlatformError as error:
            await _refuse(protocol, exchange, error)
        except ClientGone:
            _gone(exchange)
        except asyncio.CancelledError:
            # Serve cancels the request's task when the client goes away or time is up.
            _gone(exchange)
            raise
        except Exception:
            log.exception("request %s failed", exchange.request_id)
            await _refuse(protocol, exchange, internal_error())
        finally:
            if exchange.session is not None:
                exchange.session.finish(exchange.record)

    async def _enter(self, gate: Gate, protocol: HttpProtocol, exchange: Exchange) -> None:
        """Find out who asks, unless everybody may."""
        if exchange.path in protocol.probes:
            ACCESS.set(None)
        elif exchange.path in self._open:
            ACCESS.set(Unlimited())
        else:
            request = request_of(
                exchange.sent, path=exchange.path, id=exchange.request_id, protocol=protocol.name
            )
            with entering(exchange.record):
                exchange.session = await gate.enter(credentials_of(exchange.sent), request)
            exchange.record.principal = exchange.session.principal
            ACCESS.set(exchange.session)


async def _refuse(protocol: HttpProtocol, exchange: Exchange, error: PlatformError) -> None:
    if exchange.started:
        # The protocol could not end its stream; closing the connection is all that is left.
        log.error("request %s failed after its first byte: %s", exchange.request_id, error)
        exchange.record.code = "aborted"
        raise ConnectionAbortedError
    if isinstance(error, Refusal):
        note(exchange.record, error)
    await _drain(exchange, error)
    status, headers, body = protocol.error(error, exchange.request_id)
    if error.retry_after_s is not None:
        headers = [*headers, (b"retry-after", b"%d" % max(1, round(error.retry_after_s)))]
    if isinstance(error, Refusal):
        headers = [*headers, *_encoded(error.headers)]
    if isinstance(error, Denial) and error.body is not None:
        body = error.body.encode()
    await exchange.start(status, [*headers, (b"content-length", b"%d" % len(body))])
    await exchange.write(body, more=False)


async def _drain(exchange: Exchange, error: PlatformError) -> None:
    """Read what is left of a refused body, where that is not the trouble itself."""
    is_load = error.code is Code.RESOURCE_EXHAUSTED and not isinstance(error, Refusal)
    if is_load or isinstance(error, TooLarge):
        return
    try:
        await exchange.drain()
    except asyncio.CancelledError:
        _gone(exchange)
        raise
    except Exception:  # noqa: BLE001  # the answer is the same
        log.debug("request %s: its body can't be read to its end", exchange.request_id)


def _encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.encode(), value.encode()) for name, value in headers]


def _gone(exchange: Exchange) -> None:
    exchange.record.client_gone = True
    if not exchange.started:
        exchange.record.code = CLIENT_CLOSED_REQUEST


async def _lifespan(receive: Receive, send: Send) -> None:
    """Accept the server's start-up and shutdown events: there is nothing to do for them here."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
