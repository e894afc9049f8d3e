import asyncio
from dataclasses import replace

import pytest

from rayserve_platform.core import entry as entry_module
from rayserve_platform.core.cards import Adapter, ModelCard, Task
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.runtime import PartialRuntime


class Described(PartialRuntime):
    """A runtime that only describes itself; counts how often it is asked."""

    def __init__(self, name: str, *, aliases=(), adapters=()) -> None:
        self.card = ModelCard(
            id=name,
            root=f"/models/{name}",
            runtime="described",
            tasks=frozenset({Task.GENERATE}),
            aliases=aliases,
            adapters=tuple(Adapter(name=a, root=f"/lora/{a}") for a in adapters),
        )
        self.more: tuple[ModelCard, ...] = ()
        self.asked = 0
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def describe(self) -> tuple[ModelCard, ...]:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return (self.card, *self.more)

    async def check_health(self) -> None:
        """Always well."""


def down() -> PlatformError:
    return PlatformError(Code.UNAVAILABLE, "The model is still loading.")


@pytest.fixture
def stale(monkeypatch):
    """Every known card is too old at the next request."""
    monkeypatch.setattr(entry_module, "CARD_TTL_S", 0.0)


@pytest.mark.parametrize("name", ["big", "large", "declared"])
async def test_a_model_is_found_by_id_alias_and_declared_name(name):
    big, small = Described("big", aliases=("large",)), Described("small")
    served = await Catalog([("other", small), ("declared", big)]).resolve(name)
    assert served.runtime is big
    assert served.card is big.card
    assert served.adapter is None


async def test_an_adapter_resolves_to_its_model_and_its_own_name():
    base = Described("base", adapters=("poet",))
    served = await Catalog([base, Described("small")]).resolve("poet")
    assert (served.runtime, served.adapter) == (base, "poet")


@pytest.mark.parametrize("name", ["nope", "Big", "big ", "poet/"])
async def test_an_unknown_name_is_not_found_and_the_served_ones_are_named(name):
    catalog = Catalog([Described("big", aliases=("large",), adapters=("poet",))])
    with pytest.raises(PlatformError) as caught:
        await catalog.resolve(name)
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.param == "model"
    assert f"'{name}'" in caught.value.message
    assert "big, large, poet" in caught.value.message


@pytest.mark.parametrize("name", [None, ""])
async def test_no_name_means_the_only_model(name):
    only = Described("only")
    served = await Catalog([only]).resolve(name)
    assert (served.runtime, served.adapter) == (only, None)


@pytest.mark.parametrize("name", [None, ""])
async def test_no_name_among_several_models_is_refused_naming_them(name):
    with pytest.raises(PlatformError) as caught:
        await Catalog([Described("a"), Described("b")]).resolve(name)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.param == "model"
    assert "a, b" in caught.value.message


async def test_the_first_request_waits_for_the_card_and_hears_why_there_is_none():
    runtime = Described("m")
    runtime.failure = down()
    catalog = Catalog([runtime])
    with pytest.raises(PlatformError) as caught:
        await catalog.resolve("m")
    assert caught.value.code is Code.UNAVAILABLE
    runtime.failure = None
    assert (await catalog.resolve("m")).card is runtime.card


async def test_concurrent_first_requests_ask_once():
    runtime = Described("m")
    runtime.gate = asyncio.Event()
    catalog = Catalog([runtime])
    waiting = [asyncio.create_task(catalog.resolve("m")) for _ in range(20)]
    await asyncio.sleep(0)
    runtime.gate.set()
    assert {(await task).card.id for task in waiting} == {"m"}
    assert runtime.asked == 1


async def test_a_fresh_card_is_not_asked_for_again():
    runtime = Described("m")
    catalog = Catalog([runtime])
    for _ in range(5):
        await catalog.resolve("m")
    assert runtime.asked == 1


async def test_an_old_card_is_answered_at_once_and_renewed_behind(stale, eventually):
    runtime = Described("m")
    catalog = Catalog([runtime])
    await catalog.resolve("m")
    old, runtime.card = runtime.card, replace(runtime.card, aliases=("new",))
    assert (await catalog.resolve("m")).card is old
    await eventually(lambda: runtime.asked == 2)
    assert (await catalog.resolve("new")).card is runtime.card


async def test_an_old_card_is_asked_for_once_at_a_time(stale, eventually):
    runtime = Described("m")
    catalog = Catalog([runtime])
    await catalog.resolve("m")
    runtime.gate = asyncio.Event()
    for _ in range(5):
        await catalog.resolve("m")
        await asyncio.sleep(0)
    assert runtime.asked == 2
    runtime.gate.set()


async def test_an_old_card_is_kept_while_the_runtime_cannot_be_asked(stale, eventually):
    runtime = Described("m")
    catalog = Catalog([runtime])
    await catalog.resolve("m")
    runtime.failure = down()
    for asked in (2, 3):
        assert (await catalog.resolve("m")).card is runtime.card
        await eventually(lambda asked=asked: runtime.asked == asked)
    assert [served.card.id for served in await catalog.served()] == ["m"]


async def test_models_that_cannot_be_reached_are_left_out_of_the_list():
    well, ill = Described("well"), Described("ill")
    ill.failure = down()
    served = await Catalog([ill, well]).served()
    assert [s.card.id for s in served] == ["well"]


async def test_the_list_fails_when_no_model_can_be_reached():
    one, two = Described("one"), Described("two")
    one.failure = two.failure = down()
    with pytest.raises(PlatformError, match="still loading"):
        await Catalog([one, two]).served()


async def test_a_declared_model_is_found_while_its_neighbour_is_down():
    well, ill = Described("well"), Described("ill")
    ill.failure = down()
    catalog = Catalog([("ill", ill), ("well", well)])
    assert (await catalog.resolve("well")).runtime is well
    assert ill.asked == 0


async def test_an_alias_is_found_while_another_model_is_down():
    well, ill = Described("well", aliases=("fine",)), Described("ill")
    ill.failure = down()
    catalog = Catalog([("ill", ill), ("well", well)])
    assert (await catalog.resolve("fine")).runtime is well


async def test_a_name_that_a_model_which_is_down_may_have_is_unavailable_not_unknown():
    ill = Described("ill")
    ill.failure = down()
    with pytest.raises(PlatformError) as caught:
        await Catalog([("ill", ill), ("well", Described("well"))]).resolve("perhaps")
    assert caught.value.code is Code.UNAVAILABLE


@pytest.fixture
def at_once(monkeypatch):
    """A runtime is asked again for what is missed, however lately it was asked."""
    monkeypatch.setattr(entry_module, "MISS_TTL_S", 0.0)


async def test_a_model_that_is_new_is_found_at_the_first_request_for_it(at_once):
    runtime = Described("a")
    catalog = Catalog([Described("z"), runtime])
    await catalog.resolve("a")
    runtime.more = (replace(runtime.card, id="b"),)
    assert (await catalog.resolve("b")).card.id == "b"


async def test_a_missed_name_is_asked_for_once_at_a_time_and_not_soon_again():
    runtime = Described("a")
    catalog = Catalog([runtime])
    await catalog.resolve("a")
    for _ in range(3):
        with pytest.raises(PlatformError):
            await catalog.resolve("b")
    assert runtime.asked == 1


async def test_a_missed_name_is_not_found_though_the_runtime_cannot_be_asked(at_once):
    runtime = Described("a")
    catalog = Catalog([runtime])
    await catalog.resolve("a")
    runtime.failure = down()
    with pytest.raises(PlatformError) as caught:
        await catalog.resolve("b")
    assert caught.value.code is Code.NOT_FOUND
    assert (await catalog.resolve("a")).card is runtime.card


async def test_a_broken_model_that_was_mended_is_served_at_once(at_once):
    runtime = Described("a")
    well = runtime.card
    runtime.card = replace(well, problem="no config.yml")
    catalog = Catalog([runtime])
    with pytest.raises(PlatformError):
        await catalog.resolve("a")
    runtime.card = well
    assert (await catalog.resolve("a")).card is well


async def test_one_runtime_may_serve_several_models():
    runtime = Described("a")
    runtime.more = (replace(runtime.card, id="b", aliases=("bee",)),)
    catalog = Catalog([runtime])
    assert (await catalog.resolve("bee")).card.id == "b"
    assert [served.card.id for served in await catalog.served()] == ["a", "b"]
    with pytest.raises(PlatformError) as caught:
        await catalog.resolve(None)
    assert "a, b" in caught.value.message


async def test_a_broken_model_is_described_but_not_served():
    runtime = Described("a")
    runtime.more = (replace(runtime.card, id="b", problem="no config.yml"),)
    catalog = Catalog([runtime])
    assert [served.card.id for served in await catalog.described()] == ["a", "b"]
    assert [served.card.id for served in await catalog.served()] == ["a"]
    with pytest.raises(PlatformError) as caught:
        await catalog.resolve("b")
    assert caught.value.code is Code.UNAVAILABLE
    assert "config.yml" not in caught.value.message


def test_the_runtimes_are_kept_in_order():
    a, b = Described("a"), Described("b")
    assert Catalog([("x", a), b]).runtimes == [a, b]
