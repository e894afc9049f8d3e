"""Handing a request to a runtime's own OpenAI server.

The server sees a plain ASGI request with a body that has been read already. Its answers pass
unchanged, but for failures: what it says of a failure of its own (status 500 and above) may name
internals, so the caller gets the status, a general text and the request id instead.
"""

import logging

import orjson

from rayserve_platform.core.errors import Code, PlatformError, engine_unavailable, internal_error
from rayserve_platform.core.runtime import Message, NativeHttp, Receive, Send
from rayserve_platform.core.usage import USAGE_KEY
from rayserve_platform.edge.exchange import ClientGone, Exchange
from rayserve_platform.protocols.openai.render import DONE, error_object

log = logging.getLogger("rayserve.edge")

EVENT_STREAM = b"text/event-stream"
FAILURES = (b"InternalServerError", b"internal_error")
"""How vLLM's error events name a failure of its own."""
NOT_FORWARDED = frozenset({b"x-request-id", b"content-length", b"transfer-encoding"})
"""Replaced, or of no meaning once the body has been read."""


async def forward(exchange: Exchange, runtime: NativeHttp, body: bytes, *, is_json: bool) -> None:
    """Let `runtime` answer `exchange`, whose body has been read as `body`.

    Raises:
        PlatformError: when the runtime's server failed before its first byte.
        ClientGone: when the client left before that.
    """
    replaced = NOT_FORWARDED | {b"content-type"} if is_json else NOT_FORWARDED
    headers = [(name, value) for name, value in exchange.scope["headers"] if name not in replaced]
    headers += exchange.engine_headers
    headers.append((b"x-request-id", exchange.request_id.encode()))
    if is_json:
        # It has been read as JSON: `curl -d`, which calls it a form, need not be refused.
        headers.append((b"content-type", b"application/json"))
    headers.append((b"content-length", b"%d" % len(body)))
    scope = {**exchange.scope, "path": exchange.path, "root_path": "", "headers": headers}
    guard = _Guard(exchange.send, exchange.request_id)
    try:
        await runtime.native(scope, _replay(body, exchange.receive), guard.send)
    except PlatformError as error:
        if not guard.streaming:
            raise
        exchange.record.code = f"200/{error.code.value}"
        await exchange.write(_event(error, exchange.request_id) + DONE, more=False)
    except Exception:
        # Starlette answers an unknown exception with 500 and then raises it as well.
        if guard.failed is None:
            raise
    if guard.failed is not None:
        log.error("request %s: the engine answered %s", exchange.request_id, guard.text[:2000])
        raise guard.failed
    if not exchange.started:
        raise ClientGone


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then what the connection says next (its end)."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class _Guard:
    """Passes an answer on, unless it reports a failure of the server."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.streaming = False
        self.failed: PlatformError | None = None
        self.text = b""

    async def send(self, message: Message) -> None:
        """Pass on or hold back one ASGI message."""
        # A meter has read it, where there is one; a server need not know it.
        message.pop(USAGE_KEY, None)
        if message["type"] == "http.response.start":
            if message["status"] >= 500:
                self.failed = _failure(message["status"])
            else:
                message = _head(message)
                self.streaming = (b"content-type", EVENT_STREAM) in [
                    (name.lower(), value.split(b";")[0]) for name, value in message["headers"]
                ]
        elif self.streaming and any(word in message.get("body", b"") for word in FAILURES):
            message = {**message, "body": self._cleaned(message["body"])}
        if self.failed is None:
            await self._send(message)
        else:
            self.text += message.get("body", b"")

    def _cleaned(self, body: bytes) -> bytes:
        """Replace events that report a failure of the server: their texts may name internals."""
        events = body.split(b"\n\n")
        general = _event(internal_error(), self._request_id).removesuffix(b"\n\n")
        for index, event in enumerate(events):
            if b'"error"' in event and any(word in event for word in FAILURES):
                log.error("request %s: the engine's stream: %s", self._request_id, event[:2000])
                events[index] = general
        return b"\n\n".join(events)


def _event(error: PlatformError, request_id: str) -> bytes:
    return b"data: " + orjson.dumps(error_object(error, request_id)) + b"\n\n"


def _head(message: Message) -> Message:
    """Return the head of an answer as the client gets it; the request id is the edge's to name."""
    headers = [h for h in message.get("headers", ()) if h[0].lower() != b"x-request-id"]
    if message["status"] == 429:
        headers.append((b"retry-after", b"1"))
    return {**message, "headers": headers}


def _failure(status: int) -> PlatformError:
    if status == 501:
        return PlatformError(Code.UNIMPLEMENTED, "The model's engine does not implement this.")
    if status == 503:
        return engine_unavailable()
    if status == 504:
        return PlatformError(Code.DEADLINE_EXCEEDED, "The model's engine did not answer in time.")
    return internal_error()
