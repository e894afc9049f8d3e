"""Asking for a share: all quotas of a request, or none of them.

Before the engine is asked a request must find a place, a token left of every budget, and a request
left of every rate. Tokens are counted afterwards, as the engine tells them; so a request that finds
one token left is answered whole, and its caller waits the longer for the next.
"""

import math
from collections import Counter
from collections.abc import Sequence

from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.edge.quotas.counts import Counts, Limit, Window
from rayserve_platform.edge.quotas.exceeded import QuotaExceeded
from rayserve_platform.edge.quotas.headers import told
from rayserve_platform.edge.quotas.rules import Places, Rules
from rayserve_platform.settings.limits import Quotas as Settings

PLACE_RETRY_S = 1.0
"""When a place will be free nobody knows."""


class Share:
    """What a request has taken; given back by `release`."""

    def __init__(self, counts: Counts, places: "Counter[str]") -> None:
        self._counts = counts
        self._places = places
        self._held: list[str] = []
        self._budgets: tuple[Limit, ...] = ()
        self.headers: list[tuple[str, str]] = []

    def hold(self, places: Places) -> None:
        """Take a place, if there is one; raises `QuotaExceeded`."""
        if self._places[places.key] >= places.amount:
            raise _no_place(places)
        self._places[places.key] += 1
        self._held.append(places.key)

    def charge(self, budgets: tuple[Limit, ...]) -> None:
        """Say which budgets pay for the request's tokens."""
        self._budgets = budgets

    @property
    def is_charged(self) -> bool:
        """Whether there are any."""
        return bool(self._budgets)

    def spend(self, tokens: int) -> None:
        """Count tokens that were used."""
        for budget in self._budgets:
            self._counts.add(budget, tokens)

    def release(self) -> None:
        """Give the places back; what was counted stays counted."""
        for key in self._held:
            self._places[key] -= 1
            if not self._places[key]:
                del self._places[key]
        self._held = []


class Quotas:
    """The quotas of an ingress replica, for all requests of both transports."""

    def __init__(self, settings: Settings, counts: Counts) -> None:
        self._rules = Rules(settings.rules)
        self._counts = counts
        self._places: Counter[str] = Counter()
        self._headers = settings.headers

    @property
    def places(self) -> dict[str, int]:
        """The places that are taken now."""
        return dict(self._places)

    async def take(self, principal: Principal | None, target: Target, protocol: str) -> Share:
        """Take a request's share of every quota that it falls under.

        Raises:
            QuotaExceeded: when one of them is used up; then nothing of the others is taken.
        """
        plan = self._rules.plan(principal, target, protocol)
        share = Share(self._counts, self._places)
        try:
            for places in plan.places:
                share.hold(places)
            share.headers = await self._take(plan.rates, await self._check(plan.budgets))
        except BaseException:
            share.release()
            raise
        share.charge(plan.budgets)
        return share

    async def close(self) -> None:
        """Let go of connections."""
        await self._counts.close()

    async def _check(self, budgets: Sequence[Limit]) -> list[tuple[str, str]]:
        """Refuse when a budget has no token left; returns the headers."""
        if not budgets:
            return []
        left = await self._counts.look(budgets)
        headers = self._told("tokens", budgets, left)
        over = [(b, w) for b, w in zip(budgets, left, strict=True) if w.remaining(b.amount) < 1]
        if over:
            raise _used_up(over, headers)
        return headers

    async def _take(
        self, rates: Sequence[Limit], headers: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Take one of every rate, or give back what was taken; returns the headers."""
        if not rates:
            return headers
        taken = await self._counts.take(rates)
        headers = [*self._told("requests", rates, [window for _, window in taken]), *headers]
        refused = [(r, w) for r, (ok, w) in zip(rates, taken, strict=True) if not ok]
        if refused:
            for rate, (ok, _) in zip(rates, taken, strict=True):
                if ok:
                    self._counts.add(rate, -1)
            raise _used_up(refused, headers)
        return headers

    def _told(
        self, kind: str, limits: Sequence[Limit], windows: Sequence[Window]
    ) -> list[tuple[str, str]]:
        if not self._headers:
            return []
        return told(kind, zip([limit.amount for limit in limits], windows, strict=True))


def _used_up(over: list[tuple[Limit, Window]], headers: list[tuple[str, str]]) -> QuotaExceeded:
    """Tell of the limit that is longest in the way."""
    limit, window = max(over, key=lambda one: one[1].wait_s(one[0].amount))
    return QuotaExceeded(
        f"Rate limit reached: {limit.amount} {limit.kind} per {_window(limit.window_s)} "
        f"(quota '{limit.quota}'). Retry later.",
        rule=f"{limit.quota}/{limit.kind}",
        retry_after_s=math.ceil(window.wait_s(limit.amount)),
        headers=headers,
    )


def _no_place(places: Places) -> QuotaExceeded:
    return QuotaExceeded(
        f"Rate limit reached: {places.amount} requests at a time (quota '{places.quota}'). "
        "Retry later.",
        rule=f"{places.quota}/concurrent",
        retry_after_s=PLACE_RETRY_S,
    )


def _window(seconds: int) -> str:
    for name, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds % length == 0:
            count = seconds // length
            return name if count == 1 else f"{count} {name}s"
    return "second" if seconds == 1 else f"{seconds} seconds"
