"""What every rule of a policy has: when it applies, before which others, and what it remembers."""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, Generic, TypeVar

from cachebox import VTTLCache

from rayserve_platform.edge.auth.conditions import Computed, Conditions, Patterns
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault
from rayserve_platform.edge.auth.selector import as_json, written
from rayserve_platform.edge.auth.verdict import POSITIVE_TTL_S
from rayserve_platform.settings.auth.rules import Rule
from rayserve_platform.settings.auth.values import Cache

T = TypeVar("T")

KEPT_BYTES = 2**26
"""Of what one rule has found, as JSON: an answer may have 1 MiB, and callers choose how many."""


class CacheKey:
    """What a policy's `cache.key` makes of a request.

    The model and the principal always belong to it: a key that forgets them must not let one
    caller's verdict through for another.
    """

    def __init__(self, cache: Cache | None, where: str) -> None:
        self._key = None if cache is None else Computed(cache.key, f"{where}.cache.key")
        self.ttl_s = POSITIVE_TTL_S if cache is None else float(cache.ttl)

    @property
    def is_given(self) -> bool:
        """Whether the policy has one."""
        return self._key is not None

    def of(self, document: Document) -> str:
        """Return the key, empty where the policy has none."""
        return "" if self._key is None else written(self._key.of(document))

    def about(self, token: str, document: Document) -> str:
        """Return the key of a verdict about a token."""
        return f"{self.of(document)}\0{token}"


class Compiled(Generic[T]):
    """A rule, ready to be applied.

    Args:
        run: what it does.
    """

    def __init__(
        self,
        name: str,
        rule: Rule,
        named: Patterns,
        phase: str,
        run: T,
    ) -> None:
        self.name = name
        self.priority = rule.priority
        self.where = f"{phase}.{name}"
        self.run = run
        self._when = Conditions(rule.when, named, f"{self.where}.when")
        self._key = CacheKey(rule.cache, self.where)
        self._kept: VTTLCache[str, Any] = VTTLCache(KEPT_BYTES, getsizeof=_size)

    def applies(self, document: Document) -> bool:
        """Say whether its conditions hold.

        Raises:
            EvaluationFault: when that can't be said; whoever asks must deny.
        """
        return self._when.hold(document)

    async def remembered(self, document: Document, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Return what the rule finds, from its cache where the policy gives it one."""
        if not self._key.is_given:
            return await ask()
        target = document.target
        whom = written(document.identity)
        what = target and [target.model, target.adapter, target.operation]
        key = written([self._key.of(document), whom, what])
        kept = self._kept.get(key)
        if kept is None:
            asked_at = time.monotonic()
            kept = (await ask(),)
            ttl_s = self._key.ttl_s - (time.monotonic() - asked_at)
            if ttl_s > 0:
                # It may be larger than all may be together, or too deep to be measured.
                with suppress(OverflowError, EvaluationFault):
                    self._kept.insert(key, kept, ttl=ttl_s)
        return kept[0]


def by_priority(rules: Iterable[Compiled[T]]) -> Sequence[Sequence[Compiled[T]]]:
    """Return rules in the order in which they run; those of one group at the same time."""
    ordered = sorted(rules, key=lambda rule: rule.priority)
    return [list(group) for _, group in groupby(ordered, key=lambda rule: rule.priority)]


def _size(key: str, kept: Any) -> int:
    return len(key) + len(as_json(kept))
