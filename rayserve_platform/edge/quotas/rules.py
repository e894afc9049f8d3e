"""Which quotas a request falls under, and the keys that they count it by."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.settings.limits import Quota, amount_and_window

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A quota, ready to be asked."""

    quota: Quota
    requests: tuple[tuple[int, int], ...]
    """(amount, window in seconds) of each."""
    tokens: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """The quota's name."""
        return self.quota.name

    def fits(self, principal: Principal | None, target: Target, protocol: str) -> bool:
        """Say whether a request falls under it."""
        quota = self.quota
        return (
            (not quota.principals or _id(principal) in quota.principals)
            and (not quota.groups or any(g in quota.groups for g in _groups(principal)))
            and (not quota.models or target.model in quota.models or target.adapter in quota.models)
            and (not quota.protocols or protocol in quota.protocols)
        )

    def key(self, principal: Principal | None, target: Target) -> str:
        """Return what the request is counted by.

        Every part is quoted: no name can be chosen so that it counts as another.
        """
        parts = [self.quota.name]
        if "principal" in self.quota.per:
            rule = principal.rule if principal is not None else ""
            parts += ["p", quote(rule, safe=""), quote(_id(principal), safe="")]
        if "model" in self.quota.per:
            parts += ["m", quote(target.model, safe="")]
        return "/".join(parts)


class Rules:
    """All quotas of an ingress, in the order of its settings."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._rules = [
            Rule(
                quota=quota,
                requests=tuple(map(amount_and_window, quota.requests)),
                tokens=tuple(map(amount_and_window, quota.tokens)),
            )
            for quota in quotas
        ]

    def of(self, principal: Principal | None, target: Target, protocol: str) -> list[Rule]:
        """Return the quotas that count a request: of each `per` the first that fits."""
        found: dict[frozenset[str], Rule] = {}
        for rule in self._rules:
            per = frozenset(rule.quota.per)
            if per not in found and rule.fits(principal, target, protocol):
                found[per] = rule
        return list(found.values())


def _id(principal: Principal | None) -> str:
    return ANONYMOUS if principal is None else principal.id


def _groups(principal: Principal | None) -> tuple[str, ...]:
    return () if principal is None else principal.groups
