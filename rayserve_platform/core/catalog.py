"""Which models an ingress serves, and which runtime answers for each name."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError, no_such_model
from rayserve_platform.core.runtime import ModelRepository, NoRepository, Runtime
from rayserve_platform.core.tensors import Value, VersionState

log = logging.getLogger("rayserve.catalog")

LOAD_WAIT_S = 300.0
BRIEFLY_S = 3.0
"""How long a question about several models waits for each."""
HEALTH_TIMEOUT_S = 5.0
HEALTH_GRACE_S = 30.0
CARD_TTL_S = 10.0
"""A card is asked for again after this long: adapters and readiness can change while serving."""
MISS_TTL_S = 0.5
"""So long a card is believed that lacks what a request means: it may be there by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A resolved name: the model's card, its runtime, and the adapter that the name stands for."""

    card: ModelCard
    runtime: Runtime
    adapter: str | None = None


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
        for card in cards:
            if name == card.id or name in card.aliases or name == self.name:
                return Served(card=card, runtime=self.runtime)
            if any(name == adapter.name for adapter in card.adapters):
                return Served(card=card, runtime=self.runtime, adapter=name)
        return None

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


class Catalog:
    """Names to runtimes. With a single model, a request that names none means that one.

    Args:
        runtimes: the runtimes served. An entry given as (name, runtime) is known under `name`
            before its card is; a bare runtime only under the names of its card.
        load_wait_s: how long a request waits for a model that it means and that has not been
            reached yet: it may be loading, waking or being replaced.
    """

    def __init__(
        self,
        runtimes: Iterable[Runtime | tuple[str, Runtime]],
        *,
        load_wait_s: float = LOAD_WAIT_S,
    ) -> None:
        self._load_wait_s = load_wait_s
        self._well_at = -math.inf
        self._entries = [
            Entry(item[1], item[0]) if isinstance(item, tuple) else Entry(item, None)
            for item in runtimes
        ]

    async def resolve(self, name: str | None, version: str | None = None) -> Served:
        """Return the model that `name` stands for; a runtime whose cards lack it is asked again.

        Raises:
            PlatformError: NOT_FOUND naming the served models; INVALID_ARGUMENT when no name is
                given and several models are served; UNAVAILABLE when the model could not be loaded;
                whatever `describe` raises (UNAVAILABLE).
        """
        served = await (self.look_up(name, version) if name else self._only())
        if served.card.problem:
            raise PlatformError(
                Code.UNAVAILABLE,
                f"The model '{served.card.id}' could not be loaded.",
                param="model",
            )
        return served

    async def look_up(self, name: str, version: str | None = None) -> Served:
        """Return what a name stands for as `resolve` does, broken models included."""
        found = await self._named(name)
        if found is None or _may_be_old(found.card, version):
            await self.renew(name)
            found = await self._named(name)
        if found is None:
            raise no_such_model(name, f" Served models: {await self._known()}.")
        return found

    async def renew(self, name: str) -> None:
        """Ask again for the cards that may have this name, unless that was done a moment ago."""
        await asyncio.gather(*(entry.renew() for entry in self._candidates(name)))

    async def _only(self) -> Served:
        if len(self._entries) == 1:
            entry = self._entries[0]
            cards = await entry.cards(self._load_wait_s)
            if len(cards) == 1:
                return Served(card=cards[0], runtime=entry.runtime)
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"'model' is required: several models are served ({await self._known()}).",
            param="model",
        )

    async def _named(self, name: str) -> Served | None:
        unreached: PlatformError | None = None
        candidates = self._candidates(name)
        patience_s = self._load_wait_s if len(candidates) == 1 else BRIEFLY_S
        for entry in candidates:
            try:
                found = entry.find(await entry.cards(patience_s), name)
            except PlatformError as error:
                # Another model may know the name; if none does, it may be this one's.
                unreached = unreached or error
                continue
            if found is not None:
                return found
        if unreached is not None:
            raise unreached
        return None

    async def described(self) -> list[Served]:
        """Return what the runtimes that can be reached now describe, broken models included.

        Raises:
            PlatformError: what the first runtime answered, when none can be reached.
        """
        found = await asyncio.gather(
            *(entry.cards(BRIEFLY_S) for entry in self._entries), return_exceptions=True
        )
        reached = [
            Served(card=card, runtime=entry.runtime)
            for cards, entry in zip(found, self._entries, strict=True)
            if not isinstance(cards, BaseException)
            for card in cards
        ]
        if not reached and isinstance(found[0], BaseException):
            raise found[0]
        return reached

    async def served(self) -> list[Served]:
        """Return the models that can be served now, in the catalog's order; raises as above."""
        return [served for served in await self.described() if not served.card.problem]

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Load a model of a runtime's repository, or load it anew.

        Raises:
            PlatformError: as `ModelRepository.load_model`; UNIMPLEMENTED where the runtime is none.
        """
        entry, own = await self._stored(name)
        await entry.repository.load_model(own, parameters)
        await entry.ask()

    async def unload_model(self, name: str) -> None:
        """Stop serving a model of a runtime's repository; raises as `load_model`."""
        entry, own = await self._stored(name)
        await entry.repository.unload_model(own)
        await entry.ask()

    async def _stored(self, name: str) -> tuple[Entry, str]:
        """Return the runtime and a model's name in its repository; no card need have it yet.

        There is one runtime: the settings refuse the repository API behind a gateway.
        """
        (entry,) = self._entries
        found = entry.find(await entry.cards(self._load_wait_s), name)
        return entry, name if found is None else found.card.id

    async def check_health(self) -> None:
        """Raise when the only runtime can serve no request; several are each other's strangers.

        A full queue is not ill health, nor is one that keeps this question waiting while answers
        still came a moment ago: a probe must not end an ingress for being busy.
        """
        if len(self._entries) != 1:
            return
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self._entries[0].runtime.check_health()
        except PlatformError as error:
            if error.code is not Code.RESOURCE_EXHAUSTED:
                raise
        except TimeoutError:
            if time.monotonic() - self._well_at > HEALTH_GRACE_S:
                raise PlatformError(Code.UNAVAILABLE, "The engine does not answer.") from None
        else:
            self._well_at = time.monotonic()

    @property
    def runtimes(self) -> list[Runtime]:
        """The runtimes, in the catalog's order."""
        return [entry.runtime for entry in self._entries]

    def _candidates(self, name: str) -> list[Entry]:
        """Return entries to ask for `name`: the one declared under it, else all of them."""
        declared = [entry for entry in self._entries if entry.name == name]
        return declared or self._entries

    async def _known(self) -> str:
        names: list[str] = []
        for card in [served.card for served in await self.served()]:
            names += [card.id, *card.aliases, *(adapter.name for adapter in card.adapters)]
        return ", ".join(names) or "none"


def _may_be_old(card: ModelCard, version: str | None) -> bool:
    """Say whether a card lacks what a request means, and its model may have changed."""
    if card.problem:
        return True
    able = [v.version for v in card.versions if v.state is VersionState.AVAILABLE]
    return Task.INFER in card.tasks and (version not in able if version else not able)
