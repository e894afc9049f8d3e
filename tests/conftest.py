"""What the unit and contract tests share: the OpenAI ingress over a fake engine, on a real socket.

The server does with a client that leaves what a replica of Serve does: it cancels the request.
"""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, settings

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.runtime import Message, Receive, Scope, Send
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress, Model
from rayserve_platform.settings.fake import FakeApp, FakeEngine

# The same examples on every run, however slow or busy the machine is.
settings.register_profile(
    "rayserve",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("rayserve")


class CancelledByClient:
    """Wraps an ASGI app: its task is cancelled when the client disconnects, as in a Serve replica
    (`ray.serve._private.replica`, direct ingress)."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        messages: asyncio.Queue[Message] = asyncio.Queue()

        async def read() -> None:
            while True:
                message = await receive()
                messages.put_nowait(message)
                if message["type"] == "http.disconnect":
                    return

        reading = asyncio.ensure_future(read())
        answering = asyncio.ensure_future(self._app(scope, messages.get, send))
        try:
            await asyncio.wait([reading, answering], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class Server(uvicorn.Server):
    """Leaves the process's signals to pytest, and ends when it is told to instead of looking."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server on a real socket."""

    url: str
    client: httpx.AsyncClient
    runtime: Any


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port of this machine; yields its URL."""
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer waits 40 ms.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_config=None, ws="none", lifespan="on", timeout_graceful_shutdown=1
        )
        server = Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0)
            if serving.done():
                serving.result()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.ending.set()
            await serving


def fake_runtime(*, aliases: tuple[str, ...] = (), id: str = "fake", **engine: Any) -> FakeRuntime:  # noqa: A002
    return FakeRuntime(FakeApp(model=Model(id=id, aliases=aliases), fake=FakeEngine(**engine)))


@pytest.fixture
def make_fake() -> Callable[..., FakeRuntime]:
    """Makes a fake runtime: `id`, `aliases`, and the settings of `FakeEngine` by name."""
    return fake_runtime


@pytest.fixture
async def serve_http() -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Serves runtimes (a fake one if none is given) through the OpenAI ingress over HTTP.

    `ingress` holds its settings.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def serve(
            *runtimes: Any, ingress: dict[str, Any] | None = None, engine_elsewhere: bool = True
        ) -> Running:
            served = runtimes or (fake_runtime(),)
            settings = Ingress.model_validate(ingress or {})
            faces = http_protocols(settings, Catalog(served), engine_elsewhere=engine_elsewhere)
            edge = HttpEdge(faces, settings)
            url = await stack.enter_async_context(listening(CancelledByClient(edge)))
            # Plain HTTP: loading certificates would take longer than most tests.
            client = httpx.AsyncClient(base_url=url, timeout=30, verify=False, trust_env=False)
            await stack.enter_async_context(client)
            return Running(url=url, client=client, runtime=served[0])

        yield serve


@pytest.fixture
def access_log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Returns the lines that the ingress has written to its access log, decoded."""
    caplog.set_level(logging.INFO, logger="rayserve.access")

    def lines() -> list[dict[str, Any]]:
        records = [r for r in caplog.records if r.name == "rayserve.access"]
        return [json.loads(record.getMessage()) for record in records]

    return lines


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until something is so; a test in which it never is ends by its time limit."""

    async def wait(so: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not so():  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.01)

    return wait
