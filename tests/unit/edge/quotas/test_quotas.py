"""Taking shares: which quotas count a request, and that a refusal costs nothing."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.edge.quotas.counts import LocalCounts
from rayserve_platform.edge.quotas.exceeded import QuotaExceeded
from rayserve_platform.edge.quotas.quotas import Quotas
from rayserve_platform.settings.limits import Quota
from rayserve_platform.settings.limits import Quotas as Settings

LLAMA, GEMMA = Target(model="llama"), Target(model="gemma")
LORA = Target(model="llama", adapter="lora")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def who(name: str = "alice", *groups: str, rule: str = "keys") -> Principal:
    return Principal(id=name, groups=groups, rule=rule)


def quotas(*rules: dict[str, Any], clock: Clock | None = None, **settings: Any) -> Quotas:
    given = Settings.model_validate(
        {"rules": [{"name": "all", **rule} for rule in rules], **settings}
    )
    return Quotas(given, LocalCounts(clock or Clock()))


async def passes(asked: Quotas, principal: Principal | None, target: Target = LLAMA) -> bool:
    try:
        (await asked.take(principal, target, "openai")).release()
    except QuotaExceeded:
        return False
    return True


async def times(asked: Quotas, principal: Principal | None, target: Target = LLAMA) -> int:
    """How many of 20 requests pass."""
    return sum([await passes(asked, principal, target) for _ in range(20)])


async def test_each_principal_has_a_rate_of_its_own():
    asked = quotas({"requests": ["3/minute"]})
    assert await times(asked, who("alice")) == 3
    assert await times(asked, who("bob")) == 3
    assert await times(asked, who("alice")) == 0


async def test_one_name_known_by_two_rules_is_two_principals():
    asked = quotas({"requests": ["3/minute"]})
    assert await times(asked, who("alice", rule="keys")) == 3
    assert await times(asked, who("alice", rule="kubernetes")) == 3


async def test_without_a_token_all_are_one():
    asked = quotas({"principals": ["anonymous"], "requests": ["3/minute"]})
    assert await times(asked, None) == 3
    assert await times(asked, who("alice")) == 20


async def test_a_model_s_rate_is_everybody_s_and_counts_its_adapters():
    asked = quotas({"per": ["model"], "requests": ["5/minute"]})
    assert await times(asked, who("alice"), LORA) == 5
    assert await times(asked, who("bob"), LLAMA) == 0
    assert await times(asked, who("bob"), GEMMA) == 5


async def test_each_pair_of_principal_and_model():
    asked = quotas({"per": ["principal", "model"], "requests": ["2/minute"]})
    for principal in (who("alice"), who("bob")):
        for target in (LLAMA, GEMMA):
            assert await times(asked, principal, target) == 2


async def test_all_together():
    asked = quotas({"per": [], "requests": ["4/minute"]})
    assert await times(asked, who("alice"), LLAMA) == 4
    assert await times(asked, who("bob"), GEMMA) == 0


async def test_a_group_s_own_quota_goes_before_everybody_s():
    asked = quotas(
        {"name": "gold", "groups": ["gold"], "requests": ["10/minute"]},
        {"requests": ["2/minute"]},
    )
    assert await times(asked, who("alice", "staff", "gold")) == 10
    assert await times(asked, who("bob", "staff")) == 2


async def test_quotas_that_count_different_things_hold_together():
    asked = quotas(
        {"requests": ["6/minute"]},
        {"name": "llama", "per": ["model"], "models": ["llama"], "requests": ["8/minute"]},
    )
    assert await times(asked, who("alice")) == 6
    assert await times(asked, who("bob")) == 2
    assert await times(asked, who("carol"), GEMMA) == 6


@pytest.mark.parametrize("models", [["lora"], ["llama"]])
async def test_a_quota_may_name_an_adapter_or_its_model(models):
    asked = quotas({"models": models, "requests": ["1/minute"]})
    assert await times(asked, who(), LORA) == 1


async def test_a_quota_may_be_for_one_protocol():
    asked = quotas({"protocols": ["tgis"], "requests": ["1/minute"]})
    assert await times(asked, who()) == 20
    await asked.take(who(), LLAMA, "tgis")
    with pytest.raises(QuotaExceeded):
        await asked.take(who(), LLAMA, "tgis")


async def test_all_windows_of_a_quota_hold():
    clock = Clock()
    asked = quotas({"requests": ["3/minute", "5/hour"]}, clock=clock)
    assert await times(asked, who()) == 3
    clock.now += 121
    assert await times(asked, who()) == 2
    clock.now += 121
    assert await times(asked, who()) == 0


async def test_places_are_given_back_and_taken_by_others_meanwhile():
    asked = quotas({"concurrent": 2})
    held = [await asked.take(who(), LLAMA, "openai") for _ in range(2)]
    with pytest.raises(QuotaExceeded, match="2 requests at a time") as caught:
        await asked.take(who(), LLAMA, "openai")
    assert caught.value.rule == "all/concurrent"
    assert caught.value.retry_after_s == 1
    assert await passes(asked, who("bob"))
    held[0].release()
    held[0].release()
    assert await passes(asked, who())
    assert list(asked.places.values()) == [1]
    held[1].release()
    assert asked.places == {}


async def test_tokens_are_counted_when_they_are_used_and_refuse_the_next_request():
    clock = Clock()
    asked = quotas({"tokens": ["100/minute"]}, clock=clock)
    share = await asked.take(who(), LLAMA, "openai")
    share.spend(99)
    assert await passes(asked, who())
    share.spend(51)
    with pytest.raises(QuotaExceeded, match="100 tokens per minute") as caught:
        await asked.take(who(), LLAMA, "openai")
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.rule == "all/tokens"
    # 150 were used in the first window, so that 100 are left of it a third into the second.
    assert caught.value.retry_after_s == 80
    assert await passes(asked, who("bob"))
    clock.now = 79.9
    assert not await passes(asked, who())
    clock.now = 80.1
    assert await passes(asked, who())


async def test_a_refused_request_takes_nothing_of_any_quota():
    clock = Clock()
    asked = quotas(
        {"requests": ["10/minute"], "concurrent": 5},
        {"name": "llama", "per": ["model"], "models": ["llama"], "requests": ["1/minute"]},
        clock=clock,
    )
    assert await times(asked, who(), LLAMA) == 1
    assert asked.places == {}
    assert await times(asked, who(), GEMMA) == 9


async def test_headers_tell_what_is_left():
    asked = quotas({"requests": ["10/minute"], "tokens": ["1000/hour"]})
    share = await asked.take(who(), LLAMA, "openai")
    share.spend(40)
    assert dict(share.headers) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "2m0s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "1000",
        "x-ratelimit-reset-tokens": "0s",
    }
    again = dict((await asked.take(who(), LLAMA, "openai")).headers)
    assert again["x-ratelimit-remaining-tokens"] == "960"
    assert again["x-ratelimit-reset-tokens"] == "2h0m0s"


async def test_a_refusal_tells_all_headers_too():
    asked = quotas({"requests": ["1/minute"], "tokens": ["1000/hour"]})
    await asked.take(who(), LLAMA, "openai")
    with pytest.raises(QuotaExceeded) as caught:
        await asked.take(who(), LLAMA, "openai")
    headers = dict(caught.value.headers)
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-remaining-tokens"] == "1000"
    assert caught.value.retry_after_s == 60


async def test_headers_can_be_left_out():
    asked = quotas({"requests": ["1/minute"]}, headers=False)
    assert (await asked.take(who(), LLAMA, "openai")).headers == []
    with pytest.raises(QuotaExceeded) as caught:
        await asked.take(who(), LLAMA, "openai")
    assert caught.value.headers == ()


NAMES = st.text(st.sampled_from("ab/%pm:é "), min_size=1, max_size=6)


@given(st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=8, unique=True))
async def test_no_names_can_be_chosen_so_that_they_count_as_others(pairs):
    asked = quotas({"per": ["principal", "model"], "requests": ["1/minute"]})
    for name, model in pairs:
        assert await passes(asked, who(name), Target(model=model))
    for name, model in pairs:
        assert not await passes(asked, who(name), Target(model=model))


async def test_of_many_at_once_no_more_than_the_limit_pass():
    asked = quotas({"requests": ["7/minute"], "concurrent": 5})
    taken = await asyncio.gather(
        *[asked.take(who(), LLAMA, "openai") for _ in range(50)], return_exceptions=True
    )
    shares = [one for one in taken if not isinstance(one, BaseException)]
    assert len(shares) == 5
    for share in shares:
        share.release()
    assert await times(asked, who()) == 2


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        ({}, "at least one of requests, tokens, concurrent"),
        ({"requests": ["many"]}, "'many' is no rate; write 100/minute"),
        ({"requests": ["1/minute;2/hour"]}, "is no rate"),
        ({"tokens": ["0/minute"]}, "from 1 to 2"),
        ({"tokens": ["5/3 years"]}, "within 1 second to 366 days"),
        ({"requests": ["1/fortnight"]}, "is no rate"),
        ({"concurrent": 0}, "greater than or equal to 1"),
        ({"per": ["principal", "principal"], "concurrent": 1}, "names one thing twice"),
        ({"request": ["1/minute"]}, "did you mean 'requests'"),
    ],
)
def test_a_wrong_quota_is_refused_with_a_word(quota, words):
    with pytest.raises(ValidationError, match=words):
        Quota.model_validate({"name": "q", **quota})


def test_two_quotas_of_one_name_would_share_their_counts():
    with pytest.raises(ValidationError, match="'a' stands twice"):
        Settings.model_validate({"rules": [{"name": "a", "concurrent": 1}] * 2})


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        ({"url": "http://redis"}, "must be redis://"),
        ({"url": "redis://:secret@redis:6379/0"}, "name its variable in 'password_env'"),
    ],
)
def test_a_wrong_server_is_refused_without_its_password(shared, words):
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate({"shared": shared})
