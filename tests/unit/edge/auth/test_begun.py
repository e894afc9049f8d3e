"""What waits for nobody is done at once; what waits has a limit, and is cancelled at it."""

import asyncio
from typing import Any

import pytest

from rayserve_platform.edge.auth.begun import within

LONG_S = 60


async def test_what_waits_for_nobody_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> int:
        return 7

    monkeypatch.delattr(asyncio, "timeout")
    assert await within(LONG_S, work()) == 7


async def test_what_waits_goes_on_with_what_it_waited_for() -> None:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3)]
    for index, future in enumerate(futures):
        loop.call_later(0.001 * index, future.set_result, index)

    async def work() -> list[int]:
        return [await future for future in futures]

    assert await within(LONG_S, work()) == [0, 1, 2]


async def test_the_time_that_is_over_cancels_it() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        await within(0.01, work())
    assert ended == ["cancelled"]


async def test_a_caller_that_leaves_cancels_it_as_well() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(within(LONG_S, work()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("waits", [False, True])
async def test_what_it_raises_is_raised(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0.001)
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        await within(LONG_S, work())


async def test_it_may_catch_what_it_waited_for() -> None:
    failing: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(failing.set_exception, LookupError())

    async def work() -> str:
        try:
            await failing
        except LookupError:
            await asyncio.sleep(0)
            return "went on"
        return "nothing failed"

    assert await within(LONG_S, work()) == "went on"
