"""What an authority said is kept for a while, and asked for once for all who wait."""

import asyncio
import base64
import contextlib
import time
from typing import Any

import orjson
import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth import authority
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.verdict import Good, Verdicts
from tests.kube import KubeApi

BOT = "system:serviceaccount:tenant-a:bot"


def policy(**review: Any) -> dict[str, Any]:
    """What OpenShift AI generates for an InferenceService, with the model's name for its own."""
    return {
        "authentication": {
            "kubernetes-user": {
                "kubernetesTokenReview": {"audiences": ["rayserve"], **review},
                "credentials": {"authorizationHeader": {}},
            }
        },
        "authorization": {
            "kubernetes-rbac": {
                "kubernetesSubjectAccessReview": {
                    "user": {"selector": "auth.identity.username"},
                    "resourceAttributes": {
                        "namespace": {"value": "models"},
                        "group": {"value": "serving.kserve.io"},
                        "resource": {"value": "inferenceservices"},
                        "name": {"expression": "model.name"},
                        "verb": {"value": "get"},
                    },
                }
            }
        },
    }


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


async def test_a_server_that_hangs_is_an_outage_within_the_budget(
    kube: KubeApi, guarded: Any
) -> None:
    kube.fault = "hang"
    ask = await guarded(policy(), kube=kube, budget_s=0.2)
    assert (await refused(ask("good"))).code is Code.UNAVAILABLE


async def test_a_server_that_is_down_is_left_alone_and_used_again_when_it_is_back(
    kube: KubeApi, guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, name="llama")
    ask = await guarded(policy(), kube=kube)
    kube.fault = 500
    for index in range(20):
        assert (await refused(ask(f"junk-{index}"))).code is Code.UNAVAILABLE
    assert len(kube.requests) == authority.FAILURES
    kube.fault = None
    assert (await refused(ask("good"))).code is Code.UNAVAILABLE, "it is left alone for a moment"
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + authority.PAUSE_S)
    assert (await ask("good")).id == BOT


async def test_verdicts_are_kept_good_and_bad(kube: KubeApi, guarded: Any) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, name="llama")
    ask = await guarded(policy(), kube=kube)
    for _ in range(3):
        await ask("good")
        assert (await refused(ask("bad"))).code is Code.UNAUTHENTICATED
        assert (await refused(ask("good", target=Target(model="m")))).code is Code.PERMISSION_DENIED
    assert len(kube.reviews) == 4  # two tokens, and one's access to two models


async def test_a_verdict_is_kept_no_longer_than_the_policy_says(
    kube: KubeApi, guarded: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    rule = policy()["authentication"]["kubernetes-user"]
    rule["cache"] = {"key": {"value": "any"}, "ttl": 0}
    ask = await guarded({"authentication": {"kubernetes-user": rule}}, kube=kube)
    await ask("good")
    del kube.users["good"]
    assert (await refused(ask("good"))).code is Code.UNAUTHENTICATED


async def test_the_time_that_an_answer_took_is_part_of_the_time_that_it_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, late_s = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now() + late_s)

    async def answer() -> Good[float]:
        nonlocal late_s
        late_s += 61
        return Good(late_s)

    verdicts: Verdicts[float] = Verdicts(60)
    assert await verdicts.get("a token", answer) == 61
    assert await verdicts.get("a token", answer) == 122
    verdicts = Verdicts(90)
    assert await verdicts.get("a token", answer) == await verdicts.get("a token", answer)


async def test_a_cache_key_that_forgets_the_token_lets_no_other_token_in(
    kube: KubeApi, guarded: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.account("fine", "tenant-b:bot")
    rule = policy()["authentication"]["kubernetes-user"]
    rule["cache"] = {"key": {"selector": "request.path"}, "ttl": 60}
    ask = await guarded({"authentication": {"kubernetes-user": rule}}, kube=kube)
    assert (await ask("good")).id == BOT
    assert (await ask("fine")).id == "system:serviceaccount:tenant-b:bot"
    assert (await refused(ask("bad"))).code is Code.UNAUTHENTICATED


async def test_many_with_one_token_ask_once(kube: KubeApi, guarded: Any) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, name="llama")
    kube.delay_s = 0.05
    ask = await guarded(policy(), kube=kube)
    await asyncio.gather(*(ask("good") for _ in range(100)))
    assert len(kube.reviews) == 2


async def test_one_who_leaves_takes_nothing_from_those_who_wait(
    kube: KubeApi, guarded: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, name="llama")
    kube.delay_s = 0.1
    ask = await guarded(policy(), kube=kube)
    leaving = asyncio.create_task(ask("good"))
    staying = asyncio.create_task(ask("good"))
    await asyncio.sleep(0.03)
    leaving.cancel()
    assert (await staying).id == BOT


async def test_two_with_the_same_rights_do_not_keep_a_verdict_alive_for_each_other(
    kube: KubeApi, guarded: Any
) -> None:
    kube.grant("bot", verb="get")
    whom = {"plain": {"expression": "{'username': 'bot', 'session': request.headers['x-s']}"}}
    rule = policy()["authorization"]["kubernetes-rbac"]
    rule["cache"] = {"key": {"value": "any"}, "ttl": 1}
    ask = await guarded({"authentication": {"a": whom}, "authorization": {"r": rule}}, kube=kube)
    await ask(headers={"x-s": "1"})
    kube.grants.clear()
    await asyncio.sleep(0.7)
    with contextlib.suppress(Denial):  # a slow machine may have come too late for the first
        await ask(headers={"x-s": "2"})
    await asyncio.sleep(0.4)
    assert (await refused(ask(headers={"x-s": "2"}))).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize("expiry", [1, 1.5])
async def test_a_reviewed_token_counts_no_longer_than_its_expiry(
    kube: KubeApi, guarded: Any, expiry: float
) -> None:
    claims = base64.urlsafe_b64encode(orjson.dumps({"exp": expiry})).rstrip(b"=").decode()
    token = f"e30.{claims}.c2ln"
    kube.account(token, "tenant-a:bot")
    ask = await guarded({"authentication": policy()["authentication"]}, kube=kube)
    assert (await ask(token)).id == BOT
    del kube.users[token]
    assert (await refused(ask(token))).code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    "claims", ["e30", "!", "W10", "eyJleHAiOiAic29vbiJ9", "eyJleHAiOiB0cnVlfQ"]
)
async def test_a_reviewed_token_without_an_expiry_is_kept_as_any_other(
    kube: KubeApi, guarded: Any, claims: str
) -> None:
    token = f"e30.{claims}.c2ln"
    kube.account(token, "tenant-a:bot")
    ask = await guarded({"authentication": policy()["authentication"]}, kube=kube)
    await ask(token)
    await ask(token)
    assert len(kube.reviews) == 1
