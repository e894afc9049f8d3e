"""Streams of chunks, whatever makes or carries them."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from rayserve_platform.core.messages import Chunk

Item = TypeVar("Item")

KEPT_ITEMS = 64
"""Items of one stream kept for a client that reads slowly; then the engine is made to wait."""


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Fold all chunks of one continuation into one."""
    first, last = chunks[0], chunks[-1]
    return Chunk(
        index=last.index,
        text="".join(chunk.text for chunk in chunks),
        tokens=tuple(token for chunk in chunks for token in chunk.tokens),
        generated_tokens=last.generated_tokens,
        prompt=first.prompt,
        seed=first.seed,
        stop=last.stop,
    )


class Coalescer(Generic[Item]):
    """Stands between a producer and a consumer that may be slower.

    The first item goes out at once, then whatever is ready when the consumer comes back: no timer,
    and never more than `limit` items kept.
    """

    def __init__(self, limit: int = KEPT_ITEMS) -> None:
        self._limit = limit
        self._items: list[Item] = []
        self._ready = asyncio.Event()
        self._space = asyncio.Event()

    async def put(self, item: Item) -> None:
        """Add an item; waits while `limit` items are unread."""
        while len(self._items) >= self._limit:
            self._space.clear()
            await self._space.wait()
        self._items.append(item)
        self._ready.set()

    async def batches(
        self, producer: Coroutine[Any, Any, None]
    ) -> AsyncGenerator[list[Item], None]:
        """Run `producer` (which calls `put`) and yield what it has made so far, until it ends.

        Its exception is raised after the items that came before it. Closing the iterator cancels
        the producer and waits for it.
        """
        task = asyncio.create_task(producer)
        task.add_done_callback(lambda _: self._ready.set())
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                items, self._items = self._items, []
                self._space.set()
                if items:
                    yield items
                elif task.done():
                    break
                if task.done():
                    self._ready.set()
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
