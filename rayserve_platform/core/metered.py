"""A runtime for one request, which tells a meter what the request uses.

Every verb of every protocol passes here, a runtime's own HTTP server too, so that no protocol can
forget to ask or to count.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from rayserve_platform.core.entry import Served
from rayserve_platform.core.messages import Chunk, Embed, Embeddings, Generate
from rayserve_platform.core.principal import Target
from rayserve_platform.core.runtime import Message, Receive, Runtime, Scope, Send
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.stream import join
from rayserve_platform.core.usage import METER, TELL_USAGE, USAGE_KEY, Meter
from rayserve_platform.core.wrapped import WrappedRuntime


class MeteredRuntime(WrappedRuntime):
    """Asks the meter before the engine, and counts what the engine says it read and wrote.

    Args:
        target: what the request was resolved to.
    """

    def __init__(self, runtime: Runtime, meter: Meter, target: Target) -> None:
        super().__init__(runtime)
        self._meter = meter
        self._target = target

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Yield the chunks, counting each as it comes: who leaves early has used what came.

        Where tokens have a price, this goes for an answer that is wanted whole as well: it is asked
        for bit by bit, and put together here.
        """
        await self._before(request.adapter)
        written: dict[int, int] = {}
        whole = None
        if self._meter.is_charged and not request.stream:
            request, whole = replace(request, stream=True), _Whole()
        async with aclosing(self._runtime.generate(request)) as batches:
            async for chunks in batches:
                prompt = generated = 0
                for chunk in chunks:
                    if chunk.prompt is not None:
                        prompt += chunk.prompt.token_count
                    generated += chunk.generated_tokens - written.get(chunk.index, 0)
                    written[chunk.index] = chunk.generated_tokens
                self._meter.spend(prompt=prompt, generated=generated)
                complete = chunks if whole is None else whole.add(chunks)
                if complete:
                    yield complete
            if whole is not None and (rest := whole.rest()):
                yield rest

    async def embed(self, request: Embed) -> Embeddings:
        """Return one vector an input."""
        found = await super().embed(request)
        self._meter.spend(prompt=sum(found.token_counts), generated=0)
        return found

    async def score(self, request: Score) -> Scores:
        """Return scores."""
        found = await super().score(request)
        self._meter.spend(prompt=found.token_count, generated=0)
        return found

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the runtime's own server answer; what it says of usage ends here."""
        await self._before(None)
        has_head = False
        if self._meter.is_charged:
            scope = {**scope, "headers": [*scope["headers"], TELL_USAGE]}

        async def counted(message: Message) -> None:
            nonlocal has_head
            used = message.pop(USAGE_KEY, None)
            if used is not None:
                self._meter.spend(prompt=used[0], generated=used[1])
            has_head = has_head or message["type"] == "http.response.start"
            if has_head:
                await send(message)

        await super().native(scope, receive, counted)

    async def _before(self, adapter: str | None) -> None:
        # An adapter that the request itself names counts as the one resolved.
        target = self._target
        if adapter is not None and target.adapter is None:
            target = Target(model=target.model, adapter=adapter)
        await self._meter.admit(target)


class _Whole:
    """Puts continuations together that come bit by bit."""

    def __init__(self) -> None:
        self._parts: dict[int, list[Chunk]] = {}

    def add(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Take chunks; returns the continuations that are complete with them."""
        complete: list[Chunk] = []
        for chunk in chunks:
            self._parts.setdefault(chunk.index, []).append(chunk)
            if chunk.stop is not None:
                complete.append(join(self._parts.pop(chunk.index)))
        return complete

    def rest(self) -> list[Chunk]:
        """Return the continuations that ended without saying why."""
        return [join(parts) for parts in self._parts.values()]


def metered(served: Served) -> Served:
    """Return a model with a runtime that tells the request's meter, where it has one."""
    meter = METER.get()
    if meter is None:
        return served
    return replace(served, runtime=MeteredRuntime(served.runtime, meter, served.target))
