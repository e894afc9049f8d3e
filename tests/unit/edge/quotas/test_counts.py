"""Sliding windows, beside the `limits` library's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from rayserve_platform.edge.quotas.counts import LocalCounts, Window
from tests.unit.edge.quotas.asking import look, passes, rate, take


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


STEPS = st.lists(st.floats(0, 25, allow_nan=False), min_size=1, max_size=60)


@given(STEPS, st.integers(1, 8))
async def test_it_takes_and_refuses_as_the_limits_library_does(steps, limit):
    clock = Clock(1_000_000.0)
    counts = LocalCounts(clock)
    item = parse(f"{limit}/10 seconds")
    storage = MemoryStorage()
    theirs = SlidingWindowCounterRateLimiter(storage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.aio.storage.memory.time.time", clock)
        for step in steps:
            clock.now += step
            ours, window = await take(counts, "k", 10, limit)
            assert ours == await theirs.hit(item, "k")
            stats = await theirs.get_window_stats(item, "k")
            assert window.remaining(limit) == stats.remaining
        assert storage.timer is not None
        await storage.timer


@given(STEPS, st.integers(1, 8))
async def test_no_fixed_window_has_more_than_the_limit(steps, limit):
    clock = Clock()
    counts = LocalCounts(clock)
    taken: dict[int, int] = {}
    for step in steps:
        clock.now += step
        if await passes(counts, "k", 10, limit):
            number = int(clock.now // 10)
            taken[number] = taken.get(number, 0) + 1
    assert max(taken.values()) <= limit


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0.01, 10), st.integers(1, 30))
async def test_after_the_wait_one_more_fits_and_before_it_none(previous, current, left_s, limit):
    clock = Clock(20 - left_s)
    counts = LocalCounts(clock)
    clock.now, now = 5.0, clock.now
    counts.add(rate("k", 10), previous)
    clock.now = now
    counts.add(rate("k", 10), current)
    window = await look(counts, "k", 10)
    wait_s = window.wait_s(limit)
    if wait_s > 1e-6:
        clock.now = now + wait_s * 0.999 - 1e-9
        assert not await passes(counts, "k", 10, limit)
    clock.now = now + wait_s + 1e-6
    assert await passes(counts, "k", 10, limit)


@given(st.integers(0, 5), st.integers(0, 5), st.floats(0.01, 10))
async def test_after_the_reset_nothing_counts(previous, current, left_s):
    clock = Clock(5.0)
    counts = LocalCounts(clock)
    counts.add(rate("k", 10), previous)
    clock.now = now = 20 - left_s
    counts.add(rate("k", 10), current)
    reset_s = (await look(counts, "k", 10)).reset_s()
    if previous or current:
        clock.now = now + reset_s * 0.99 - 1e-6
        assert (await look(counts, "k", 10)).used > 0
    clock.now = now + reset_s + 1e-6
    assert (await look(counts, "k", 10)).used == 0


async def test_keys_and_windows_have_counts_of_their_own():
    counts = LocalCounts(Clock())
    counts.add(rate("a", 10), 3)
    counts.add(rate("a", 60), 1)
    counts.add(rate("b", 10), 2)
    assert [(await look(counts, k, w)).current for k, w in (("a", 10), ("a", 60), ("b", 10))] == [
        3,
        1,
        2,
    ]


async def test_what_was_taken_back_is_free_again_and_never_less_than_nothing():
    counts = LocalCounts(Clock())
    assert await passes(counts, "k", 10, 1)
    assert not await passes(counts, "k", 10, 1)
    counts.add(rate("k", 10), -1)
    assert await passes(counts, "k", 10, 1)
    counts.add(rate("k", 10), -5)
    assert (await look(counts, "k", 10)).current == 0


async def test_what_goes_over_the_limit_is_counted_whole_and_paid_off_later():
    """A request that was let in with one token left may write a thousand."""
    clock = Clock()
    counts = LocalCounts(clock)
    counts.add(rate("k", 10), 1000)
    window = await look(counts, "k", 10)
    assert window.remaining(100) == 0
    assert window.wait_s(100) == pytest.approx(10 + 10 * 0.9)


async def test_keys_that_nobody_uses_are_forgotten():
    clock = Clock()
    counts = LocalCounts(clock)
    for number in range(50_000):
        clock.now += 0.01
        await take(counts, f"k{number}", 10, 5)
    assert len(counts) < 8000


def test_an_empty_window_is_whole():
    window = Window(previous=0, current=0, left_s=5, window_s=10)
    assert (window.remaining(7), window.wait_s(7), window.reset_s()) == (7, 0, 0)
