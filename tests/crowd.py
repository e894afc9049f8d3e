"""Many requests, a few at a time: an engine answers those together, and each as it would alone."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

AT_A_TIME = 8


async def ask_all(items: Iterable[T], ask: Callable[[T], Awaitable[None]]) -> None:
    """Ask about each item; the first failure ends all."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(item: T) -> None:
        async with places:
            await ask(item)

    async with asyncio.TaskGroup() as group:
        for item in items:
            group.create_task(one(item))
