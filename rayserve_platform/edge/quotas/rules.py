"""Which quotas a request falls under, and the keys that they count it by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.edge.quotas.counts import Limit
from rayserve_platform.settings.limits import Quota, amount_and_window

ANONYMOUS = "anonymous"
KEPT_PLANS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What quotas look at of a principal."""

    id: str = ANONYMOUS
    rule: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """A number of requests at a time."""

    key: str
    amount: int
    quota: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a request has to ask for."""

    places: tuple[Places, ...]
    rates: tuple[Limit, ...]
    budgets: tuple[Limit, ...]


class Rules:
    """All quotas of an ingress, in the order of its settings."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._quotas = tuple(quotas)
        self._planned = lru_cache(KEPT_PLANS)(self._plan)

    def plan(self, principal: Principal | None, target: Target, protocol: str) -> Plan:
        """Return what a request has to ask for."""
        if principal is None:
            return self._planned(Caller(), target, protocol)
        caller = Caller(id=principal.id, rule=principal.rule, groups=principal.groups)
        return self._planned(caller, target, protocol)

    def _plan(self, caller: Caller, target: Target, protocol: str) -> Plan:
        keyed = [(q, _key(q, caller, target)) for q in self._of(caller, target, protocol)]
        return Plan(
            places=tuple(
                Places(key=key, amount=quota.concurrent, quota=quota.name)
                for quota, key in keyed
                if quota.concurrent is not None
            ),
            rates=tuple(
                limit
                for q, key in keyed
                for limit in _limits(q, "requests", f"{key}/r", q.requests)
            ),
            budgets=tuple(
                limit for q, key in keyed for limit in _limits(q, "tokens", f"{key}/t", q.tokens)
            ),
        )

    def _of(self, caller: Caller, target: Target, protocol: str) -> list[Quota]:
        """Return the quotas that count a request: of each `per` the first that fits."""
        found: dict[frozenset[str], Quota] = {}
        for quota in self._quotas:
            per = frozenset(quota.per)
            if per not in found and _fits(quota, caller, target, protocol):
                found[per] = quota
        return list(found.values())


def _fits(quota: Quota, caller: Caller, target: Target, protocol: str) -> bool:
    return (
        (not quota.principals or caller.id in quota.principals)
        and (not quota.groups or any(group in quota.groups for group in caller.groups))
        and (not quota.models or target.model in quota.models or target.adapter in quota.models)
        and (not quota.protocols or protocol in quota.protocols)
    )


def _key(quota: Quota, caller: Caller, target: Target) -> str:
    """Return what a request is counted by.

    Every part is quoted: no name can be chosen so that it counts as another.
    """
    parts = [quota.name]
    if "principal" in quota.per:
        parts += ["p", quote(caller.rule, safe=""), quote(caller.id, safe="")]
    if "model" in quota.per:
        parts += ["m", quote(target.model, safe="")]
    return "/".join(parts)


def _limits(quota: Quota, kind: str, key: str, rates: Iterable[str]) -> list[Limit]:
    pairs = map(amount_and_window, rates)
    return [
        Limit(key=key, window_s=window_s, amount=amount, quota=quota.name, kind=kind)
        for amount, window_s in pairs
    ]
