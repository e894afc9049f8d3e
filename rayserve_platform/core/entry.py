"""One runtime of a catalog, and what it last said of itself."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.principal import Target
from rayserve_platform.core.runtime import ModelRepository, NoRepository, Runtime
from rayserve_platform.core.salted import Salt
from rayserve_platform.core.tensors import VersionState

log = logging.getLogger("rayserve.catalog")

BRIEFLY_S = 3.0
"""How long a question about several models waits for each."""
CARD_TTL_S = 10.0
"""A card is asked for again after this long: adapters and readiness can change while serving."""
MISS_TTL_S = 0.5
"""So long a card is believed that lacks what a request means: it may be there by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A resolved name: the model's card, its runtime, and the adapter that the name stands for.

    Args:
        declared: the name that a gateway gives the model; two models may have one id elsewhere.
        salt: the caller's, where callers are kept apart in what an engine remembers.
    """

    card: ModelCard
    runtime: Runtime
    adapter: str | None = None
    declared: str | None = None
    salt: Salt | None = None

    @property
    def target(self) -> Target:
        """What rights and quotas are about."""
        return self.target_of(self.adapter)

    def target_of(self, adapter: str | None) -> Target:
        """Return the model with another adapter, or with none."""
        return Target(model=self.declared or self.card.id, adapter=adapter)


class Entry:
    """One runtime of a catalog and its last known cards."""

    def __init__(self, runtime: Runtime, name: str | None) -> None:
        self.runtime = runtime
        self.name = name
        self._cards: tuple[ModelCard, ...] | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None

    async def cards(self, patience_s: float) -> tuple[ModelCard, ...]:
        """Return the cards. Only the first requests wait for them, `patience_s` at most.

        Cards older than `CARD_TTL_S` are asked for again in the background, and kept if there is no
        answer: a model that sleeps or is being replaced is still the same model.
        """
        if self._cards is None:
            try:
                async with asyncio.timeout(patience_s), self._asking:
                    if self._cards is None:
                        await self.ask()
            except TimeoutError:
                raise PlatformError(
                    Code.UNAVAILABLE, "The model is still loading. Retry later.", retry_after_s=5
                ) from None
        elif time.monotonic() - self._asked_at >= CARD_TTL_S and self._refresh is None:
            self._refresh = asyncio.create_task(self._refreshed())
        assert self._cards is not None
        return self._cards

    def find(self, cards: Iterable[ModelCard], name: str) -> Served | None:
        """Return what `name` stands for here."""
        for served in self.all(tuple(cards)):
            card = served.card
            if name == card.id or name in card.aliases or name == self.name:
                return served
            if any(name == adapter.name for adapter in card.adapters):
                return replace(served, adapter=name)
        return None

    def meant(self, name: str) -> Target | None:
        """Return what a name stands for as far as is known now, without asking the runtime."""
        if self._cards is None:
            return Target(model=name) if name == self.name else None
        found = self.find(self._cards, name)
        return None if found is None else found.target

    def targets(self) -> list[Target] | None:
        """Return what can be called as far as is known now; None where only cards can tell."""
        if self._cards is None:
            return None if self.name is None else [Target(model=self.name)]
        return [target for served in self.all(self._cards) for target in targets_of(served)]

    def all(self, cards: Sequence[ModelCard]) -> list[Served]:
        """Return the models of some cards; several can't all go by the entry's one name."""
        declared = self.name if len(cards) == 1 else None
        return [Served(card=card, runtime=self.runtime, declared=declared) for card in cards]

    @property
    def repository(self) -> ModelRepository:
        """The runtime, as what its models are loaded and unloaded by."""
        runtime = self.runtime
        return runtime if isinstance(runtime, ModelRepository) else NoRepository()

    async def ask(self) -> None:
        """Ask for the cards now."""
        self._cards = await self.runtime.describe()
        self._asked_at = time.monotonic()

    async def renew(self) -> None:
        """Ask again for cards that lack something, unless this was done a moment ago."""
        if self._cards is None or self._is_fresh():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(BRIEFLY_S), self._asking:
                if not self._is_fresh():
                    await self._ask_again()

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._asked_at < MISS_TTL_S

    async def _refreshed(self) -> None:
        try:
            await self._ask_again()
        finally:
            self._refresh = None

    async def _ask_again(self) -> None:
        """Ask for the cards, and keep those known where there is no answer."""
        try:
            await self.ask()
        except PlatformError:
            pass
        except Exception:
            log.exception("a runtime could not describe itself")
        finally:
            self._asked_at = time.monotonic()


def targets_of(served: Served) -> list[Target]:
    """Return a model and its adapters."""
    adapters = [served.target_of(adapter.name) for adapter in served.card.adapters]
    return [served.target_of(None), *adapters]


def may_be_old(card: ModelCard, version: str | None) -> bool:
    """Say whether a card lacks what a request means, and its model may have changed."""
    if card.problem:
        return True
    able = [v.version for v in card.versions if v.state is VersionState.AVAILABLE]
    return Task.INFER in card.tasks and (version not in able if version else not able)
