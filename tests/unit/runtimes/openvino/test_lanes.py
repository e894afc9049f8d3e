"""Requests that wait are computed together, and each gets what it would get alone."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.openvino.lanes import FAILURES_LIMIT, Arrays, Lanes
from tests.unit.runtimes.openvino.conftest import refusal


class Held:
    """A requester that waits for leave, and doubles its input; it fails on NaN."""

    def __init__(self) -> None:
        self.leave = threading.Event()
        self.entered = threading.Event()
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[int], /) -> Arrays:
        self.seen.append(inputs[0].shape)
        self.entered.set()
        assert self.leave.wait(60)
        if np.isnan(inputs[0]).any():
            raise RuntimeError("scripted failure")
        made = [2 * inputs[0], inputs[0].astype(np.int64)]
        return [made[place] for place in outputs]


class Yours:
    """Blames every failure on the request."""

    fault: PlatformError | None = PlatformError(Code.INVALID_ARGUMENT, "yours")

    def learn(self, arrays: Any) -> None:
        """Learn nothing."""

    def blame(self, requester: Any, arrays: Any) -> PlatformError | None:
        return self.fault


class Nobodys(Yours):
    """Blames no failure on the request."""

    fault = None


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def lanes(held: Held) -> Iterator[Callable[..., Lanes]]:
    made: list[Lanes] = []

    def make(**options: Any) -> Lanes:
        defaults: dict[str, Any] = {
            "max_rows": 8,
            "max_delay_s": 0.0,
            "max_queued": 16,
            "retry_after_s": 2.0,
            "probe": Yours(),
        }
        made.append(Lanes([held], **{**defaults, **options}))
        return made[-1]

    yield make
    held.leave.set()
    for one in made:
        one.close()


def rows(count: int, width: int = 3, value: float = 1.0) -> NDArray[np.float32]:
    return np.full((count, width), value, np.float32)


async def waiting(lanes: Lanes, held: Held, *inputs: Any) -> list[asyncio.Task[Arrays]]:
    """Occupy the lane with one row, then queue the inputs behind it."""
    first = asyncio.create_task(lanes.run([rows(1)], (0,)))
    await asyncio.to_thread(held.entered.wait, 60)
    tasks = [asyncio.create_task(lanes.run([array], (0,))) for array in inputs]
    await asyncio.sleep(0)
    assert lanes.queued == len(inputs)
    return [first, *tasks]


async def test_what_waits_is_computed_together_and_shared_out(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    given = [rows(2, value=2), rows(1, value=3), rows(3, value=4)]
    tasks = await waiting(lanes(), held, *given)
    held.leave.set()
    found = await asyncio.gather(*tasks)
    assert held.seen == [(1, 3), (6, 3)]
    for array, (answer,) in zip(given, found[1:], strict=True):
        np.testing.assert_array_equal(answer, 2 * array)


async def test_requests_of_other_shapes_are_not_mixed(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    tasks = await waiting(lanes(), held, rows(1), rows(2, width=5), rows(2), rows(1, width=5))
    held.leave.set()
    await asyncio.gather(*tasks)
    assert held.seen == [(1, 3), (3, 3), (3, 5)]


async def test_no_batch_has_more_rows_than_allowed_and_a_larger_request_goes_alone(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    tasks = await waiting(lanes(max_rows=4), held, rows(3), rows(2), rows(1), rows(9), rows(0))
    held.leave.set()
    found = await asyncio.gather(*tasks)
    assert held.seen == [(1, 3), (4, 3), (2, 3), (9, 3), (0, 3)]
    assert [len(answer) for (answer,) in found] == [1, 3, 2, 1, 9, 0]


async def test_a_request_whose_inputs_differ_in_rows_goes_alone(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    made = lanes()
    (first,) = await waiting(made, held)
    both = [
        asyncio.create_task(made.run([rows(a), rows(b)], (0,))) for a, b in ((2, 1), (1, 1), (1, 2))
    ]
    await asyncio.sleep(0)
    held.leave.set()
    await asyncio.gather(first, *both)
    assert held.seen == [(1, 3), (2, 3), (1, 3), (1, 3)]


async def test_without_batching_each_request_goes_alone(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    tasks = await waiting(lanes(max_rows=0), held, rows(1), rows(1))
    held.leave.set()
    await asyncio.gather(*tasks)
    assert held.seen == [(1, 3)] * 3


async def test_each_request_gets_the_outputs_it_wants(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    made = lanes()
    (first,) = await waiting(made, held)
    both = asyncio.create_task(made.run([rows(1, value=7)], (1, 0)))
    second = asyncio.create_task(made.run([rows(1, value=8)], (1,)))
    await asyncio.sleep(0)
    held.leave.set()
    await first
    assert [array.dtype.kind for array in await both] == ["i", "f"]
    ((eight,),) = await second
    assert eight.tolist() == [8, 8, 8]


async def test_a_request_waits_for_company_as_long_as_it_is_told(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    held.leave.set()
    made = lanes(max_rows=3, max_delay_s=30.0)
    await asyncio.gather(*(made.run([rows(1)], (0,)) for _ in range(3)))
    assert held.seen == [(3, 3)]
    short = lanes(max_rows=3, max_delay_s=0.01)
    await short.run([rows(1)], (0,))


async def test_a_full_queue_refuses_at_once(lanes: Callable[..., Lanes], held: Held) -> None:
    made = lanes(max_queued=2)
    tasks = await waiting(made, held, rows(1), rows(1))
    error = await refusal(made.run([rows(1)], (0,)))
    assert (error.code, error.retry_after_s) == (Code.RESOURCE_EXHAUSTED, 2.0)
    held.leave.set()
    await asyncio.gather(*tasks)
    await made.run([rows(1)], (0,))


async def test_a_request_that_is_given_up_leaves_the_queue(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    made = lanes()
    first, second, third = await waiting(made, held, rows(4), rows(1))
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert made.queued == 1
    held.leave.set()
    await asyncio.gather(first, third)
    assert held.seen == [(1, 3), (1, 3)]


async def test_a_request_given_up_while_it_is_computed_harms_nobody(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    made = lanes()
    (first,) = await waiting(made, held)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    held.leave.set()
    assert len(await made.run([rows(1)], (0,))) == 1


async def test_one_bad_request_does_not_fail_those_beside_it(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    made = lanes()
    tasks = await waiting(made, held, rows(1), rows(1, value=np.nan), rows(2))
    held.leave.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, PlatformError) for one in found] == [False, False, True, False]
    assert not made.dead


async def test_failures_that_are_nobodys_fault_count(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    held.leave.set()
    made = lanes(probe=Nobodys())
    for _ in range(FAILURES_LIMIT):
        assert not made.dead
        with pytest.raises(RuntimeError):
            await made.run([rows(1, value=np.nan)], (0,))
    assert made.dead
    await made.run([rows(1)], (0,))
    assert not made.dead


async def test_closing_finishes_what_is_there_and_takes_nothing_more(
    lanes: Callable[..., Lanes], held: Held
) -> None:
    made = lanes(max_delay_s=30.0)
    tasks = [asyncio.create_task(made.run([rows(1)], (0,))) for _ in range(2)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(made.close))
    await asyncio.to_thread(held.entered.wait, 60)  # the lane no longer waits for company
    assert (await refusal(made.run([rows(1)], (0,)))).code is Code.UNAVAILABLE
    held.leave.set()
    assert [len(found) for found in await asyncio.gather(*tasks)] == [1, 1]
    await closing
