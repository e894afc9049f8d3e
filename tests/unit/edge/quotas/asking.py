"""Asking counts for one window at a time."""

from rayserve_platform.edge.quotas.counts import Counts, Limit, Window


def rate(key: str, window_s: int, amount: int = 1) -> Limit:
    return Limit(key=key, window_s=window_s, amount=amount)


async def take(counts: Counts, key: str, window_s: int, amount: int) -> tuple[bool, Window]:
    (taken,) = await counts.take([rate(key, window_s, amount)])
    return taken


async def passes(counts: Counts, key: str, window_s: int, amount: int) -> bool:
    return (await take(counts, key, window_s, amount))[0]


async def look(counts: Counts, key: str, window_s: int) -> Window:
    (window,) = await counts.look([rate(key, window_s)])
    return window
