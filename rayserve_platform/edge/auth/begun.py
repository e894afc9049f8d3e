"""Coroutines that are begun at once, so that what waits for nobody costs no timer."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(limit_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; a limit is set where it has to wait.

    What it does before that is not part of the time.

    Raises:
        TimeoutError: when the time is over; the coroutine has been cancelled.
    """
    try:
        waits_for = work.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    async with asyncio.timeout(limit_s):
        return await _rest(work, waits_for)


@coroutine
def _rest(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that waits for its first future, as `await` would have."""
    while True:
        step: Callable[[], Any]
        try:
            step = partial(work.send, (yield waits_for))
        except BaseException as error:  # noqa: BLE001  # a cancellation is the coroutine's too
            step = partial(work.throw, error)
        try:
            waits_for = step()
        except StopIteration as end:
            found: T = end.value
            return found
