"""vLLM's own OpenAI application around an engine in this process, as an ASGI callable.

`build_app` and `init_app_state` are what vLLM's server itself starts with
(`vllm.entrypoints.launchers.api_server.entry.build_and_serve`), so every feature of that server is
here. Which of its routes can be reached is the ingress's decision.
"""

import argparse
import asyncio
import contextlib
import json
import logging
from types import SimpleNamespace
from typing import Any

from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from rayserve_platform.core.runtime import Message, Receive, Scope, Send
from rayserve_platform.core.usage import TELL_USAGE, USAGE_KEY
from rayserve_platform.runtimes.vllm.counting import TALLY, Tally

TELL_S = 0.25
"""So long tokens of an answer that is wanted whole may be unknown to its meter."""

log = logging.getLogger("rayserve.vllm")


class NativeServer:
    """The application and what it needs to run. Made by `create`."""

    def __init__(self, app: Any, life: contextlib.AsyncExitStack) -> None:
        self._app = app
        self._life = life

    @classmethod
    async def create(
        cls, engine: AsyncLLM, args: argparse.Namespace, tasks: tuple[Any, ...]
    ) -> "NativeServer":
        """Build the application and start its background work."""
        app = build_app(args, tasks, engine.model_config)
        await init_app_state(engine, app.state, args, tasks)
        # vLLM's handlers stop their own uvicorn server when the engine dies; here the replica's
        # health check does that job, so they get something harmless to stop.
        app.state.server = SimpleNamespace(should_exit=False)
        for kind in (EngineDeadError, EngineGenerateError):
            app.add_exception_handler(kind, _unavailable)
        for kind in (QueueOverflowError, MaxQueuedTokensError):
            app.add_exception_handler(kind, _overloaded)
        life = contextlib.AsyncExitStack()
        await life.enter_async_context(app.router.lifespan_context(app))
        return cls(app, life)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as an ASGI application; its messages tell of the tokens (`USAGE_KEY`).

        Some of vLLM's routes report a dead engine as a failure of their own (500).
        """
        is_watched = TELL_USAGE in scope["headers"]
        tally = Tally(is_watched=is_watched)
        TALLY.set(tally)
        telling = asyncio.create_task(_tell(tally, send)) if is_watched else None

        async def corrected(message: Message) -> None:
            if telling is not None:
                telling.cancel()  # from now on the answer's own messages tell
            if message.get("status", 0) >= 500 and self._app.state.engine_client.errored:
                message["status"] = 503
            used = tally.take()
            if used is not None:
                message[USAGE_KEY] = used
            await send(message)

        try:
            await self._app(scope, receive, corrected)
        finally:
            if telling is not None:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)

    @property
    def routes(self) -> frozenset[str]:
        """The routes it has, as `METHOD /path`."""
        return frozenset(
            f"{method} {route.path}"
            for route in self._app.routes
            for method in getattr(route, "methods", None) or ()
        )

    @property
    def state(self) -> Any:
        """The application's state: vLLM's serving objects."""
        return self._app.state

    async def close(self) -> None:
        """End its background work."""
        await self._life.aclose()


async def _tell(tally: Tally, send: Send) -> None:
    """Tell of tokens while there is no answer yet: whoever leaves before it has used them."""
    while True:
        await asyncio.sleep(TELL_S)
        used = tally.take()
        if used is not None:
            body = {"type": "http.response.body", "body": b"", "more_body": True}
            await send({**body, USAGE_KEY: used})


class ErrorAnswer:
    """An error as an ASGI response, in the shape of vLLM's own."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        self._status = status
        error = {"message": message, "type": kind, "param": None, "code": status}
        self._body = json.dumps({"error": error}).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


async def _unavailable(_: Any, error: Exception) -> ErrorAnswer:
    log.error("the engine failed: %s", error)
    return ErrorAnswer(503, "service_unavailable_error", "The model's engine is not available.")


async def _overloaded(_: Any, __: Exception) -> ErrorAnswer:
    return ErrorAnswer(429, "rate_limit_error", "Model is overloaded. Retry later.")
