"""What comes of a call, piece by piece, until somebody takes it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Arrivals(Generic[T]):
    """Both sides are the event loop's."""

    def __init__(self) -> None:
        self._items: list[T | Exception | None] = []
        self._ready = asyncio.Event()

    def put(self, items: Sequence[T | Exception | None]) -> None:
        """Take pieces, and behind the last of them an error, or None for the end."""
        self._items.extend(items)
        self._ready.set()

    async def take(self) -> AsyncGenerator[list[T], None]:
        """Yield what has come since the last time, until the end; raise what the call failed of."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            items, self._items = self._items, []
            pieces = [i for i in items if i is not None and not isinstance(i, Exception)]
            if pieces:
                yield pieces
            last = items[-1]
            if isinstance(last, Exception):
                raise last
            if last is None:
                return
