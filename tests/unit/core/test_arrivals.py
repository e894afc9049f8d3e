"""What comes of a call is taken in its order, whatever has gathered meanwhile."""

import asyncio

import pytest

from rayserve_platform.core.arrivals import Arrivals


async def test_what_gathered_comes_at_once_and_none_is_the_end():
    arrivals: Arrivals[int] = Arrivals()
    arrivals.put([1])
    arrivals.put([2, 3])
    taken = arrivals.take()
    assert await anext(taken) == [1, 2, 3]
    waiting = asyncio.ensure_future(anext(taken))
    await asyncio.sleep(0)
    assert not waiting.done()
    arrivals.put([4, None])
    assert await waiting == [4]
    with pytest.raises(StopAsyncIteration):
        await anext(taken)


async def test_an_error_is_raised_behind_what_came_before_it():
    arrivals: Arrivals[int] = Arrivals()
    arrivals.put([1, ValueError("why")])
    taken = arrivals.take()
    assert await anext(taken) == [1]
    with pytest.raises(ValueError, match="why"):
        await anext(taken)
