"""A runtime for one request of a caller who may use an adapter, and perhaps not its model.

Every verb passes here: one that leaves the adapter out would be answered by the model itself.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

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
from rayserve_platform.core.principal import Access, Target
from rayserve_platform.core.runtime import NativeHttp, Receive, Runtime, Scope, Send
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.tensors import Infer, Inference


class AdaptedRuntime:
    """Asks whether the caller may use what a request means, where that is not the adapter.

    Args:
        target: what the request was resolved to: an adapter, which the caller may use.
    """

    def __init__(self, runtime: Runtime, access: Access, target: Target) -> None:
        self._runtime = runtime
        self._access = access
        self._target = target

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the cards."""
        return await self._runtime.describe()

    async def check_health(self) -> None:
        """Raise if the engine can serve no more requests."""
        await self._runtime.check_health()

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Yield the chunks."""
        await self._need(request.adapter)
        async with aclosing(self._runtime.generate(request)) as batches:
            async for chunks in batches:
                yield chunks

    async def embed(self, request: Embed) -> Embeddings:
        """Return one vector an input."""
        await self._need(None)
        return await self._runtime.embed(request)

    async def score(self, request: Score) -> Scores:
        """Return scores."""
        await self._need(None)
        return await self._runtime.score(request)

    async def infer(self, request: Infer) -> Inference:
        """Return tensors."""
        await self._need(None)
        return await self._runtime.infer(request)

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Return tokens."""
        await self._need(request.adapter)
        return await self._runtime.tokenize(request)

    async def detokenize(self, request: Detokenize) -> str:
        """Return text."""
        await self._need(None)
        return await self._runtime.detokenize(request)

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the runtime's own server answer: whoever hands a request on names the adapter."""
        await cast("NativeHttp", self._runtime).native(scope, receive, send)

    async def _need(self, adapter: str | None) -> None:
        """Refuse what goes to the model, or to another adapter, without a right to that."""
        meant = Target(model=self._target.model, adapter=adapter)
        if meant != self._target and not await self._access.allowed([meant]):
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"'{self._target.adapter}' is an adapter and can't do this; only its model can.",
                param="model",
            )
