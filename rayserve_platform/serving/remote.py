"""A runtime behind a Serve handle: the seam's other side, indistinguishable from an engine."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.runtime import Receive, Scope, Send
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.tensors import Infer, Inference, Value
from rayserve_platform.core.usage import USAGE_KEY
from rayserve_platform.serving.wire import HttpCall, HttpPart, map_exceptions, or_raise


class RemoteRuntime:
    """Calls `RuntimeHost` over a handle.

    Args:
        handle: returns the handle; called at the first use, since the application of a model behind
            a gateway may be deployed after the gateway.
    """

    def __init__(self, handle: Callable[[], DeploymentHandle[Any]]) -> None:
        self._make_handle = handle
        self._methods: dict[str, Any] = {}

    async def _method(self, verb: str, *, stream: bool = False) -> Any:
        """Return the handle of one method; made once, since making one costs as much as a call."""
        if verb not in self._methods:
            try:
                # Finding an application asks the controller, and blocks.
                handle = await asyncio.to_thread(self._make_handle)
            except RayServeException:
                raise PlatformError(
                    Code.UNAVAILABLE, "The model is not deployed. Retry later.", retry_after_s=5
                ) from None
            # Both sides can import all that crosses, so plain pickle does, and costs half as much.
            options = {"request_serialization": "pickle", "response_serialization": "pickle"}
            self._methods[verb] = getattr(handle.options(stream=stream, **options), verb)
        return self._methods[verb]

    async def _call(self, verb: str, *args: Any) -> Any:
        return await (await self._method(verb)).remote(*args)

    async def _value(self, verb: str, *args: Any) -> Any:
        with map_exceptions():
            return or_raise(await self._call(verb, *args))

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the cards; waits while the engine is loading."""
        cards: tuple[ModelCard, ...] = await self._value("describe")
        return cards

    async def check_health(self) -> None:
        """Raise if the engine behind the handle is not well."""
        with map_exceptions():
            problem = await self._call("healthy")
        if problem is not None:
            raise problem

    async def embed(self, request: Embed) -> Embeddings:
        """Return embeddings."""
        answer: Embeddings = await self._value("embed", request)
        return answer

    async def score(self, request: Score) -> Scores:
        """Return scores."""
        answer: Scores = await self._value("score", request)
        return answer

    async def infer(self, request: Infer) -> Inference:
        """Return tensors."""
        answer: Inference = await self._value("infer", request)
        return answer

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Load a model of the runtime's repository; of several replicas, one does."""
        await self._value("load_model", name, parameters)

    async def unload_model(self, name: str) -> None:
        """Stop serving a model of the runtime's repository; of several replicas, one does."""
        await self._value("unload_model", name)

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Return tokens."""
        answer: Tokens = await self._value("tokenize", request)
        return answer

    async def detokenize(self, request: Detokenize) -> str:
        """Return text."""
        answer: str = await self._value("detokenize", request)
        return answer

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Stream, or fetch whole: one message is cheaper than a stream of one."""
        if not request.stream:
            yield await self._value("generate_whole", request)
            return
        async with aclosing(self._stream("generate", request)) as stream:
            async for chunks in stream:
                yield chunks

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the engine's own HTTP server answer an ASGI request."""
        call = HttpCall(
            method=scope["method"],
            path=scope["path"],
            query_string=scope.get("query_string", b""),
            headers=tuple(scope["headers"]),
            body=(await receive()).get("body", b""),
        )
        async with aclosing(self._stream("native", call)) as parts:
            async for part in parts:
                await _send_part(part, send)

    async def _stream(self, verb: str, request: Any) -> AsyncGenerator[Any, None]:
        """Yield what a streaming method yields; leaving early cancels it in the replica."""
        with map_exceptions():
            answers = (await self._method(verb, stream=True)).remote(request)
            finished = False
            try:
                async for answer in answers:
                    yield or_raise(answer)
                finished = True
            finally:
                if not finished:
                    answers.cancel()


async def _send_part(part: HttpPart, send: Send) -> None:
    """Send a part of an answer as ASGI messages."""
    used = {} if part.usage is None else {USAGE_KEY: part.usage}
    if part.status is not None:
        head = {"status": part.status, "headers": list(part.headers)}
        await send({"type": "http.response.start", **head})
    if part.body or not part.more or used:
        body = {"body": part.body, "more_body": part.more}
        await send({"type": "http.response.body", **body, **used})
