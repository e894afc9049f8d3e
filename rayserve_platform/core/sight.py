"""What of a catalog one caller gets to see: what their `Access` allows, and nothing else.

All else is as if it were not there, at the same cost: it is not asked, not woken, not waited for.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rayserve_platform.core.cards import Adapter, ModelCard
from rayserve_platform.core.entry import Entry, Served, targets_of
from rayserve_platform.core.principal import Access


async def to_ask(access: Access, entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return the runtimes to ask for a name: the one that has it, else all that may come to.

    Decided before any of them is asked. A name that nobody has costs the decisions that one costs
    which is forbidden.
    """
    declared = [entry for entry in entries if entry.name == name]
    for entry in declared or entries:
        target = entry.meant(name)
        if target is not None:
            if await access.allowed([target]):
                return [entry]
            break
    else:
        await visible_of(access, entries[:1], name)
    return await visible_of(access, entries, name)


async def visible_of(
    access: Access, entries: Sequence[Entry], name: str | None = None
) -> list[Entry]:
    """Return the runtimes of which a caller may have something: by a name, also a new adapter."""
    seen = await asyncio.gather(*(_is_visible(access, entry, name) for entry in entries))
    return [entry for entry, is_seen in zip(entries, seen, strict=True) if is_seen]


async def _is_visible(access: Access, entry: Entry, name: str | None) -> bool:
    targets = entry.targets()
    if not targets:  # only its cards can tell what it has
        return True
    if await access.allowed(targets, is_meant=False):
        return True
    if name is None:
        return False
    models = dict.fromkeys(replace(target, adapter=None) for target in targets)
    guesses = [replace(model, adapter=name) for model in models]
    return bool(await access.allowed(guesses, is_meant=False))


async def shown(access: Access, reached: Iterable[Served]) -> list[Served]:
    """Return models as a caller may know them, each with the adapters that they may call.

    An adapter whose model is not for the caller stands by itself.
    """
    listed = list(reached)
    targets = [target for served in listed for target in targets_of(served)]
    allowed = set(await access.allowed(targets, is_meant=False))
    if listed and not allowed:
        raise access.refusal()
    found: list[Served] = []
    for served in listed:
        kept = [a for a in served.card.adapters if served.target_of(a.name) in allowed]
        if served.target_of(None) in allowed:
            found.append(replace(served, card=replace(served.card, adapters=tuple(kept))))
        else:
            found += [_alone(served, adapter) for adapter in kept]
    return found


async def card_seen(access: Access, served: Served) -> ModelCard:
    """Return the card of what a caller may call, as the lists have it."""
    found = await shown(access, [served])
    fit = (one.card for one in found if one.adapter in (None, served.adapter))
    return next(fit)


def _alone(served: Served, adapter: Adapter) -> Served:
    """Return an adapter with a card that names nothing else of its model."""
    card = replace(served.card, id=adapter.name, root=adapter.root, aliases=(), adapters=())
    model = served.target.model
    return replace(served, card=card, adapter=adapter.name, declared=model)
