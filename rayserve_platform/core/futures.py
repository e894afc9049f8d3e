"""Answering requests that wait in an event loop, one after the other or from another thread."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

Answers = Sequence[tuple[asyncio.Future[T], T | BaseException]]


def answer(answers: Answers[T]) -> None:
    """Answer in the event loop; a request that has been given up hears nothing."""
    for future, found in answers:
        if future.done():
            continue
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)


def answer_from_thread(answers: Answers[T]) -> None:
    """Answer from any thread: each event loop is woken once, and one that has ended is left be."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[T], T | BaseException]]] = {}
    for future, found in answers:
        loops.setdefault(future.get_loop(), []).append((future, found))
    for loop, theirs in loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(answer, theirs)
