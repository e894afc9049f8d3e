"""A runtime around another one, for one request: every verb passes one place before the engine."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.runtime import NativeHttp, Receive, Runtime, Scope, Send
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.tensors import Infer, Inference


class WrappedRuntime:
    """Does what the other runtime does; `_before` is asked first, whatever the verb.

    What asks for facts alone (`describe`, `check_health`) does not pass there, nor does the
    runtime's own server (`native`), whose requests only their protocol can read.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def _before(self, adapter: str | None) -> None:
        """Raise `PlatformError` where the engine is not to be asked.

        Args:
            adapter: that the request means besides its model; None for verbs that know none.
        """

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the cards."""
        return await self._runtime.describe()

    async def check_health(self) -> None:
        """Raise if the engine can serve no more requests."""
        await self._runtime.check_health()

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Yield the chunks."""
        await self._before(request.adapter)
        async with aclosing(self._runtime.generate(request)) as batches:
            async for chunks in batches:
                yield chunks

    async def embed(self, request: Embed) -> Embeddings:
        """Return one vector an input."""
        await self._before(None)
        return await self._runtime.embed(request)

    async def score(self, request: Score) -> Scores:
        """Return scores."""
        await self._before(None)
        return await self._runtime.score(request)

    async def infer(self, request: Infer) -> Inference:
        """Return tensors."""
        await self._before(None)
        return await self._runtime.infer(request)

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Return tokens."""
        await self._before(request.adapter)
        return await self._runtime.tokenize(request)

    async def detokenize(self, request: Detokenize) -> str:
        """Return text."""
        await self._before(None)
        return await self._runtime.detokenize(request)

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the runtime's own server answer."""
        await cast("NativeHttp", self._runtime).native(scope, receive, send)
