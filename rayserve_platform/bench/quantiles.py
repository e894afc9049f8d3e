"""Percentiles and spreads; an empty set of values has none (None), never NaN."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of several runs, with the lowest and highest of them."""

    median: float
    low: float
    high: float


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the value below which `percent` (0-100) of the values lie, interpolated linearly."""
    if not values:
        return None
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return the spread of the values that are known, None when none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(median=median(known), low=min(known), high=max(known))


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return value / reference, None where either is unknown or the reference is zero."""
    if value is None or not reference:
        return None
    return value / reference
