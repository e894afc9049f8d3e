"""Sliding windows: what was used in the last while, in two numbers a key.

The estimate is that of the `limits` library ("sliding window counter"): what the previous window
had, weighted with the part of it that the sliding one still covers, and what the current one has.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window at a moment.

    Args:
        previous: what the window before the current one had.
        current: what the current one has.
        left_s: how long the current one lasts.
        window_s: how long each lasts.
    """

    previous: int
    current: int
    left_s: float
    window_s: int

    @property
    def used(self) -> float:
        """What counts as used now."""
        return self.previous * self.left_s / self.window_s + self.current

    def remaining(self, limit: int) -> int:
        """Return what is left of `limit`."""
        return max(0, limit - math.floor(self.used))

    def wait_s(self, limit: int) -> float:
        """Return after how long one more fits, if nothing else happens."""
        if self.used < limit:
            return 0.0
        if self.current < limit:
            # The previous window's weight falls until the current one ends.
            return self.left_s - (limit - self.current) * self.window_s / self.previous
        return self.left_s + self.window_s * (1 - limit / self.current)

    def reset_s(self) -> float:
        """Return after how long nothing counts any more, if nothing else happens."""
        if self.current:
            return self.left_s + self.window_s
        return self.left_s if self.previous else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One number of one quota, for the requests that have one key."""

    key: str
    window_s: int
    amount: int
    quota: str = ""
    kind: str = ""
    """`requests` or `tokens`."""


class Counts(Protocol):
    """Where windows are kept."""

    async def take(self, limits: Sequence[Limit]) -> list[tuple[bool, Window]]:
        """Count one more of each, where that keeps within it; tells whether, and its window then.

        Those that have room are counted even if others have none.
        """
        ...

    async def look(self, limits: Sequence[Limit]) -> list[Window]:
        """Return the windows without counting."""
        ...

    def add(self, limit: Limit, amount: int) -> None:
        """Count what has been used already; less than nothing takes back."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class LocalCounts:
    """Windows in this process.

    The `limits` library's own memory looks through all of its keys at every hit: 650 µs with ten
    thousand callers. Here old ones are swept when their number has doubled.

    Args:
        clock: seconds; never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, int], list[int]] = {}
        """Number of the current window, its count, and the count of the one before."""
        self._sweep_at = 1024

    def __len__(self) -> int:
        return len(self._kept)

    async def take(self, limits: Sequence[Limit]) -> list[tuple[bool, Window]]:
        """Count one more of each, where that keeps within it."""
        return [self._taken(limit) for limit in limits]

    async def look(self, limits: Sequence[Limit]) -> list[Window]:
        """Return the windows without counting."""
        return [
            _window(*self._current(limit.key, limit.window_s), limit.window_s) for limit in limits
        ]

    def add(self, limit: Limit, amount: int) -> None:
        """Count what has been used."""
        found, _ = self._current(limit.key, limit.window_s)
        found[1] = max(0, found[1] + amount)

    def _taken(self, limit: Limit) -> tuple[bool, Window]:
        found, left_s = self._current(limit.key, limit.window_s)
        before = _window(found, left_s, limit.window_s)
        if before.remaining(limit.amount) < 1:
            return False, before
        found[1] += 1
        return True, _window(found, left_s, limit.window_s)

    async def close(self) -> None:
        """Do nothing."""

    def _current(self, key: str, window_s: int) -> tuple[list[int], float]:
        """Return a key's numbers as of now, and how long the current window lasts."""
        now = self._clock()
        number = int(now // window_s)
        left_s = (number + 1) * window_s - now
        found = self._kept.get((key, window_s))
        if found is None:
            if len(self._kept) >= self._sweep_at:
                self._sweep(now)
            found = self._kept[key, window_s] = [number, 0, 0]
        elif found[0] != number:
            found[2] = found[1] if found[0] == number - 1 else 0
            found[0], found[1] = number, 0
        return found, left_s

    def _sweep(self, now: float) -> None:
        self._kept = {
            (key, window_s): found
            for (key, window_s), found in self._kept.items()
            if found[0] >= int(now // window_s) - 1
        }
        self._sweep_at = max(1024, 2 * len(self._kept))


def _window(found: list[int], left_s: float, window_s: int) -> Window:
    return Window(previous=found[2], current=found[1], left_s=left_s, window_s=window_s)
