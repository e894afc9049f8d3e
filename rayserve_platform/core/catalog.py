"""Which models an ingress serves, and which runtime answers for each name."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rayserve_platform.core.adapted import AdaptedRuntime
from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.entry import BRIEFLY_S, Entry, Served, may_be_old, targets_of
from rayserve_platform.core.errors import Code, PlatformError, no_such_model
from rayserve_platform.core.health import Health
from rayserve_platform.core.metered import metered
from rayserve_platform.core.principal import ACCESS, Access, Target
from rayserve_platform.core.runtime import Runtime
from rayserve_platform.core.salted import Salt, SaltedRuntime
from rayserve_platform.core.sight import card_seen, shown, to_ask, visible_of
from rayserve_platform.core.tensors import Value

LOAD_WAIT_S = 300.0
MAX_NAME_CHARS = 256


class Catalog:
    """Names to runtimes. With a single model, a request that names none means that one.

    Args:
        runtimes: the runtimes served. An entry given as (name, runtime) is known under `name`
            before its card is; a bare runtime only under the names of its card.
        load_wait_s: how long a request waits for a model that it means and that has not been
            reached yet: it may be loading, waking or being replaced.
        guarded: whoever asks must have an `ACCESS`, and gets to know only what it allows: for all
            else the catalog answers as if it were not there.
        salted: of a guarded catalog, whether callers are kept apart in what engines remember.
    """

    def __init__(
        self,
        runtimes: Iterable[Runtime | tuple[str, Runtime]],
        *,
        load_wait_s: float = LOAD_WAIT_S,
        guarded: bool = False,
        salted: bool = True,
    ) -> None:
        self._load_wait_s = load_wait_s
        self._guarded = guarded
        self._salted = salted
        self._entries = [
            Entry(item[1], item[0]) if isinstance(item, tuple) else Entry(item, None)
            for item in runtimes
        ]
        self._health = [Health(entry.runtime) for entry in self._entries]

    async def resolve(self, name: str | None, version: str | None = None) -> Served:
        """Return the model that `name` stands for; a runtime whose cards lack it is asked again.

        Raises:
            PlatformError: NOT_FOUND naming the served models; INVALID_ARGUMENT when no name is
                given and several models are served; UNAVAILABLE when the model could not be loaded;
                whatever `describe` raises (UNAVAILABLE) and the request's `ACCESS`.
        """
        served = await (self.look_up(name, version) if name else self._only())
        if served.card.problem:
            raise PlatformError(
                Code.UNAVAILABLE,
                f"The model '{served.card.id}' could not be loaded.",
                param="model",
            )
        return self._bounded(metered(self._apart(served)))

    def _apart(self, served: Served) -> Served:
        """Return a model with a runtime that shares what it remembers with no other caller."""
        access = self._access()
        if access is None or access.principal is None or not self._salted:
            return served
        salt = Salt(access.principal)
        return replace(served, runtime=SaltedRuntime(served.runtime, salt), salt=salt)

    def _bounded(self, served: Served) -> Served:
        """Return an adapter with a runtime that does nothing else for who may use only that."""
        access = self._access()
        if access is None or served.adapter is None:
            return served
        runtime = AdaptedRuntime(served.runtime, access, served.target)
        return replace(served, runtime=runtime)

    async def look_up(self, name: str, version: str | None = None) -> Served:
        """Return what a name stands for as `resolve` does, broken models included."""
        found = None
        if len(name) <= MAX_NAME_CHARS:  # what is longer is nobody's name, and asked nobody about
            found = await self._named(name)
            if found is None or may_be_old(found.card, version):
                await self.renew(name)
                found = await self._named(name)
        if found is None:
            raise await self._unknown(name)
        return found

    async def card_of(self, served: Served) -> ModelCard:
        """Return a model's card as the caller may know it."""
        access = self._access()
        return served.card if access is None else await card_seen(access, served)

    async def adapted(self, served: Served, adapter: str | None) -> Served | None:
        """Return a model with an adapter that only its runtime knows; None where it is forbidden.

        Without an adapter it is the model itself that is asked for.

        Raises:
            PlatformError: as the request's `ACCESS`.
        """
        target = served.target_of(adapter)
        return replace(served, adapter=adapter) if await self._allowed([target]) else None

    async def _unknown(self, name: str) -> PlatformError:
        """Return what is said of a model that is not there, or not for the caller."""
        return no_such_model(name, f" Served models: {await self._known()}.")

    def _access(self) -> Access | None:
        access = ACCESS.get()
        if self._guarded and access is None:
            raise RuntimeError("a guarded catalog is asked outside of a request")
        return access if self._guarded else None

    async def _allowed(self, targets: Sequence[Target]) -> Sequence[Target]:
        access = self._access()
        return targets if access is None else await access.allowed(targets)

    async def renew(self, name: str) -> None:
        """Ask again for the cards that may have this name, unless that was done a moment ago."""
        await asyncio.gather(*(entry.renew() for entry in await self._candidates(name)))

    async def _only(self) -> Served:
        if len(self._entries) == 1:
            entry = self._entries[0]
            await self._require_sole(entry)
            cards = await entry.cards(self._load_wait_s)
            if len(cards) == 1:
                (found,) = entry.all(cards)
                if (access := self._access()) is not None:
                    await access.require(found.target)
                return found
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"'model' is required: several models are served ({await self._known()}).",
            param="model",
        )

    async def _require_sole(self, entry: Entry) -> None:
        """Decide before a runtime is asked, as far as what it has is known."""
        access, targets = self._access(), entry.targets()
        if access is not None and targets:
            models = {replace(target, adapter=None) for target in targets}
            if len(models) == 1:
                await access.require(models.pop())

    async def _named(self, name: str) -> Served | None:
        """Return what a name stands for, if the caller may call it."""
        unreached: PlatformError | None = None
        candidates = await self._candidates(name)
        is_declared = [entry.name for entry in candidates] == [name]
        is_only = len(self._entries) == 1
        patience_s = self._load_wait_s if is_only or is_declared else BRIEFLY_S
        for entry in candidates:
            try:
                found = entry.find(await entry.cards(patience_s), name)
            except PlatformError as error:
                # Another model may know the name; if none does, it may be this one's.
                unreached = unreached or error
                continue
            if found is not None:
                return found if await self._allowed([found.target]) else None
        if unreached is not None:
            raise unreached
        return None

    async def described(self) -> list[Served]:
        """Return what the runtimes that can be reached now describe, broken models included.

        Raises:
            PlatformError: what the first runtime answered, when none can be reached; the refusal
                of the request's `ACCESS`, when it allows none of the models.
        """
        access = self._access()
        if access is None or not self._entries:
            return await self._reached(self._entries)
        seen = await visible_of(access, self._entries)
        if not seen:
            raise access.refusal()
        return await shown(access, await self._reached(seen))

    async def targets(self) -> list[Target]:
        """Return all that can be called, whoever may, as far as is known.

        Raises:
            PlatformError: what the first runtime answered, where nothing is known and it was asked.
        """
        known = {entry: entry.targets() for entry in self._entries}
        listed = [target for targets in known.values() for target in targets or ()]
        try:
            reached = await self._reached([entry for entry in known if known[entry] is None])
        except PlatformError:
            if not listed:
                raise
            reached = []
        return listed + [target for served in reached for target in targets_of(served)]

    async def _reached(self, entries: Sequence[Entry]) -> list[Served]:
        found = await asyncio.gather(
            *(entry.cards(BRIEFLY_S) for entry in entries), return_exceptions=True
        )
        reached = [
            served
            for cards, entry in zip(found, entries, strict=True)
            if not isinstance(cards, BaseException)
            for served in entry.all(cards)
        ]
        if not reached and found and isinstance(found[0], BaseException):
            raise found[0]
        return reached

    async def served(self) -> list[Served]:
        """Return the models that can be served now, in the catalog's order; raises as above."""
        return [served for served in await self.described() if not served.card.problem]

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Load a model of a runtime's repository, or load it anew.

        Raises:
            PlatformError: as `ModelRepository.load_model`; UNIMPLEMENTED where the runtime is none;
                the refusal of the request's `ACCESS`, for whoever may only call the model.
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
        if len(name) > MAX_NAME_CHARS:
            raise await self._unknown(name)
        (entry,) = self._entries
        meant = entry.meant(name) or Target(model=name)
        await self._require_loading(meant.model, name)
        found = entry.find(await entry.cards(self._load_wait_s), name)
        own = name if found is None else found.card.id
        if own != meant.model:
            await self._require_loading(own, name)
        return entry, own

    async def _require_loading(self, model: str, name: str) -> None:
        access = self._access()
        if access is None or await access.allowed([Target(model=model, operation="load")]):
            return
        if not await access.allowed([Target(model=model)]):
            raise await self._unknown(name)
        raise access.refusal()

    async def check_health(self) -> None:
        """Raise when the only runtime can serve no request; several are each other's strangers."""
        if len(self._health) == 1:
            await self._health[0].check()

    @property
    def runtimes(self) -> list[Runtime]:
        """The runtimes, in the catalog's order."""
        return [entry.runtime for entry in self._entries]

    async def _candidates(self, name: str) -> list[Entry]:
        """Return entries to ask for `name`: the one declared under it, else all of them.

        Of what the caller may not call, none is asked.
        """
        access = self._access()
        if access is not None:
            return await to_ask(access, self._entries, name)
        declared = [entry for entry in self._entries if entry.name == name]
        return declared or self._entries

    async def _known(self) -> str:
        names: list[str] = []
        for card in [served.card for served in await self.served()]:
            names += [card.id, *card.aliases, *(adapter.name for adapter in card.adapters)]
        return ", ".join(names) or "none"
