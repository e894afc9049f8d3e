"""A catalog as one caller sees it: what they may not call is not there, asked, woken or awaited."""

import asyncio
from collections.abc import Sequence

import pytest

from rayserve_platform.core import entry as entry_module
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.principal import ACCESS, Target
from tests.unit.core.test_catalog import Described


class Allowing:
    """Allows some targets; counts the questions."""

    principal = None

    def __init__(self, *allowed: Target) -> None:
        self._allowed = allowed
        self.questions = 0

    async def require(self, target: Target) -> None:
        if not await self.allowed([target]):
            raise self.refusal()

    async def allowed(self, targets: Sequence[Target], *, is_meant: bool = True) -> list[Target]:
        del is_meant
        self.questions += 1
        return [target for target in targets if target in self._allowed]

    def refusal(self) -> PlatformError:
        return PlatformError(Code.PERMISSION_DENIED, "no")


OPEN, SECRET = Target(model="open"), Target(model="secret")


@pytest.fixture
def caller():
    """Makes the request's caller one who may call these targets."""

    def make(*targets: Target) -> Allowing:
        access = Allowing(*targets)
        ACCESS.set(access)
        return access

    return make


@pytest.fixture
def asleep():
    """A gateway's two models, of which `secret` answers no question while it is closed."""
    awake, secret = Described("open"), Described("secret", adapters=("poet",))
    secret.gate = asyncio.Event()
    catalog = Catalog([("open", awake), ("secret", secret)], guarded=True, load_wait_s=3600)
    return catalog, awake, secret


async def refused(asking) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await asking
    return caught.value


async def test_a_forbidden_model_that_sleeps_is_neither_woken_nor_waited_for(caller, asleep):
    catalog, _, secret = asleep
    caller(OPEN)
    error = await refused(catalog.resolve("secret"))
    assert error.code is Code.NOT_FOUND
    assert error.message == "The model 'secret' does not exist. Served models: open."
    assert [served.card.id for served in await catalog.served()] == ["open"]
    assert secret.asked == 0


async def test_a_forbidden_name_costs_what_an_unknown_one_does(caller, asleep):
    catalog, awake, secret = asleep
    costs = []
    for known in (False, True):
        for name in ("secret", "nonesuch"):
            access = caller(OPEN)
            before = awake.asked
            error = await refused(catalog.resolve(name))
            costs.append((error.message.replace(name, "@"), access.questions))
            assert awake.asked - before <= 1
        assert costs[-1] == costs[-2]
        assert secret.asked == known
        caller(SECRET)
        secret.gate.set()
        await catalog.resolve("secret")


async def test_a_forbidden_model_whose_card_is_old_is_not_asked_again(caller, asleep, monkeypatch):
    catalog, _, secret = asleep
    secret.gate.set()
    caller(SECRET)
    await catalog.resolve("secret")
    monkeypatch.setattr(entry_module, "CARD_TTL_S", 0.0)
    monkeypatch.setattr(entry_module, "MISS_TTL_S", 0.0)
    caller(OPEN)
    await refused(catalog.resolve("secret"))
    await refused(catalog.resolve("nonesuch"))
    await catalog.served()
    await asyncio.sleep(0)
    assert secret.asked == 1


async def test_who_may_call_a_model_wakes_it_and_waits(caller, asleep):
    catalog, _, secret = asleep
    caller(SECRET)
    waiting = asyncio.create_task(catalog.resolve("secret"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    secret.gate.set()
    assert (await waiting).card is secret.card


async def test_an_adapter_is_found_by_who_may_call_only_it_before_its_card_is_known(caller, asleep):
    catalog, _, secret = asleep
    secret.gate.set()
    poet = Target(model="secret", adapter="poet")
    caller(poet)
    assert (await catalog.resolve("poet")).target == poet
    assert (await refused(catalog.resolve("secret"))).code is Code.NOT_FOUND


async def test_who_may_call_only_an_adapter_sees_it_alone_in_the_list(caller, asleep):
    catalog, _, secret = asleep
    secret.gate.set()
    poet = Target(model="secret", adapter="poet")
    caller(poet, SECRET)
    await catalog.resolve("poet")
    caller(poet)
    (served,) = await catalog.served()
    assert (served.card.id, served.card.root) == ("poet", "/lora/poet")
    assert (served.card.aliases, served.card.adapters) == ((), ())
    assert served.target == poet


async def test_a_request_without_a_name_does_not_wake_the_only_model_for_a_stranger(caller):
    secret = Described("secret")
    catalog = Catalog([("secret", secret)], guarded=True)
    caller(OPEN)
    assert (await refused(catalog.resolve(None))).code is Code.PERMISSION_DENIED
    assert (await refused(catalog.resolve("secret"))).code is Code.PERMISSION_DENIED
    assert secret.asked == 0


async def test_what_can_be_called_is_told_without_asking_models_that_have_a_name(caller, asleep):
    catalog, awake, secret = asleep
    assert await catalog.targets() == [OPEN, SECRET]
    assert (awake.asked, secret.asked) == (0, 0)
    bare = Described("bare", adapters=("poet",))
    both = Catalog([("open", awake), bare], guarded=True)
    assert await both.targets() == [
        OPEN,
        Target(model="bare"),
        Target(model="bare", adapter="poet"),
    ]
    bare.failure = PlatformError(Code.UNAVAILABLE, "down")
    assert (await refused(Catalog([bare], guarded=True).targets())).code is Code.UNAVAILABLE


async def test_a_repository_without_a_model_yet_is_nobodys_secret(caller):
    class Empty(Described):
        async def describe(self):
            return ()

    caller()
    assert await Catalog([Empty("e")], guarded=True).served() == []
