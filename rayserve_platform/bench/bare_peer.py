"""The least a Ray Serve app can do, on the fast data plane: what our own layer is measured against.

`python -m rayserve_platform.bench.bare_peer --port PORT [--hop]`. POST / answers with the request's
body, POST /stream with 128 server-sent events of about 150 bytes, any GET with 200. With `--hop`
both come from a second deployment over a handle, streams as lists of 16 events.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from rayserve_platform.bench.cluster import INIT_OPTIONS, http_options

EVENTS = 128
EVENTS_PER_MESSAGE = 16
_EVENT = b"data: " + json.dumps({"id": "bare", "text": "x" * 112}).encode() + b"\n\n"

# Ray Serve's HAProxy plane; the last one lifts handle messages over 4 MiB, as in our own configs.
FAST_PLANE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": "104857600",
}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
SendMessage = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, SendMessage], Awaitable[None]]
Echo = Callable[[bytes], Awaitable[bytes]]
Stream = Callable[[], AsyncIterator[list[bytes]]]


class Work:
    """What both shapes answer with; deployed behind the handle for `--hop`."""

    async def echo(self, body: bytes) -> bytes:
        """Return the body as it came."""
        return body

    async def chunks(self) -> AsyncIterator[list[bytes]]:
        """Yield all events in lists."""
        for _ in range(EVENTS // EVENTS_PER_MESSAGE):
            yield [_EVENT] * EVENTS_PER_MESSAGE


class Ingress:
    """Answers in its own process."""

    def __serve_build_asgi_app__(self) -> App:
        work = Work()
        return asgi_app(work.echo, work.chunks)


class HopIngress:
    """Asks a second deployment over a handle."""

    def __init__(self, work: Any) -> None:
        self._echo = work.echo
        self._chunks = work.chunks.options(stream=True)

    def __serve_build_asgi_app__(self) -> App:
        async def echo(body: bytes) -> bytes:
            answer: bytes = await self._echo.remote(body)
            return answer

        async def chunks() -> AsyncIterator[list[bytes]]:
            async for events in self._chunks.remote():
                yield events

        return asgi_app(echo, chunks)


def asgi_app(echo: Echo, stream: Stream) -> App:
    """Return an ASGI app of the two routes; without a framework, as it would be measured too."""

    async def app(scope: Scope, receive: Receive, send: SendMessage) -> None:
        if scope["type"] != "http":
            return
        body = await _read(receive)
        if scope["method"] == "POST" and scope["path"].endswith("/stream"):
            await _start(send, b"text/event-stream")
            async for events in stream():
                for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body"})
            return
        answer = await echo(body) if scope["method"] == "POST" else b"{}"
        await _start(send, b"application/json", len(answer))
        await send({"type": "http.response.body", "body": answer})

    return app


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _start(send: SendMessage, content_type: bytes, length: int | None = None) -> None:
    headers = [(b"content-type", content_type)]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def main() -> None:
    """Start a local Ray cluster, serve the app, wait for SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", required=True, type=int, help="HTTP port on the loopback")
    parser.add_argument("--hop", action="store_true", help="answer from a second deployment")
    arguments = parser.parse_args()
    # Here too, before ray is imported: a handle bound in this process takes its transport (gRPC
    # or actor calls) from this process's environment, not from the controller's.
    os.environ.update(FAST_PLANE)
    import ray
    from ray import serve

    quiet = {"enable_access_log": False}
    deploy = serve.deployment(max_ongoing_requests=1000, logging_config=quiet)
    ray.init(**INIT_OPTIONS)
    serve.start(
        proxy_location="HeadOnly",
        http_options=http_options(arguments.port),
        controller_options={"runtime_env": {"env_vars": FAST_PLANE}},
        logging_config=quiet,
    )
    if arguments.hop:
        work = deploy(Work).bind()
        app = deploy(serve.ingress()(HopIngress)).bind(work)
    else:
        app = deploy(serve.ingress()(Ingress)).bind()
    serve.run(app, name="bare")
    # In the place of Ray's own handler, which prints a stack trace.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()


if __name__ == "__main__":
    main()
