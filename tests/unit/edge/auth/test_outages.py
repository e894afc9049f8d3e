"""What counts as an outage of an authority, and for whom."""

import asyncio
from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth import authority
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.settings.auth.app import Auth
from tests.authorities import Service
from tests.kube import KubeApi

BOT = "system:serviceaccount:tenant-a:bot"
TOKENS = {"k": {"kubernetesTokenReview": {"audiences": ["rayserve"]}}}


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


def test_an_authority_that_is_back_is_used_within_five_seconds() -> None:
    # A call that tries just before it is back takes its time, and then there is another pause.
    call_s = Auth.model_fields["budget_s"].default
    assert authority.PAUSE_S + call_s + authority.PAUSE_S <= 5


async def test_a_crowd_of_junk_tokens_is_no_outage(
    kube: KubeApi, guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "MAX_CALLS", 1)
    kube.account("good", "tenant-a:bot")
    kube.delay_s = 0.1
    ask = await guarded({"authentication": TOKENS}, kube=kube, budget_s=0.15)
    crowd = await asyncio.gather(*(refused(ask(f"junk-{index}")) for index in range(20)))
    assert {denial.code for denial in crowd} == {Code.UNAUTHENTICATED, Code.UNAVAILABLE}
    await asyncio.sleep(0.1)  # until the last of their questions has ended
    assert (await ask("good")).id == BOT


async def test_junk_tokens_of_one_address_keep_no_other_address_out(
    kube: KubeApi, guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "MAX_CALLS", 2)
    monkeypatch.setattr(authority, "MAX_CALLS_OF_ONE", 1)
    kube.account("good", "tenant-a:bot")
    kube.delay_s = 0.1
    ask = await guarded({"authentication": TOKENS}, kube=kube, budget_s=1)
    junk = asyncio.gather(
        *(ask(f"junk-{index}", source=f"10.0.0.1:{index}") for index in range(50)),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    assert (await ask("good", source="10.0.0.2:1")).id == BOT
    assert not junk.done()
    junk.cancel()
    await asyncio.gather(junk, return_exceptions=True)


async def test_reviews_of_tokens_and_of_access_are_left_alone_each_by_itself(
    kube: KubeApi, guarded: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, verb="get")
    attributes = {"name": {"selector": "request.path"}, "verb": {"value": "get"}}
    review = {"user": {"selector": "auth.identity.username"}, "resourceAttributes": attributes}
    rules = {
        "authentication": TOKENS,
        "authorization": {"rbac": {"kubernetesSubjectAccessReview": review}},
    }
    ask = await guarded(rules, kube=kube)
    await ask("good")
    kube.fault = 500
    for index in range(authority.FAILURES):
        assert (await refused(ask(f"junk-{index}"))).code is Code.UNAVAILABLE
    kube.fault = None
    assert (await refused(ask("other"))).code is Code.UNAVAILABLE
    # The verdict on this token is kept; that on access to another path is asked for.
    assert (await ask("good", path="/v1/other")).id == BOT


async def test_a_no_to_one_caller_is_no_outage_for_the_others(
    guarded: Any, service: Service
) -> None:
    by_header = {"plain": {"selector": "request.headers.x-user"}}
    url = {"urlExpression": f"'{service.url}/' + auth.identity.username"}
    ask = await guarded({"authentication": {"u": by_header}, "metadata": {"m": {"http": url}}})
    service.fault = 404
    for _ in range(authority.FAILURES * 2):
        assert (await refused(ask(headers={"x-user": "bob"}))).code is Code.UNAVAILABLE
    service.fault = None
    assert (await ask(headers={"x-user": "alice"})).id == "alice"


@pytest.mark.parametrize("status", [429, 500, 302])
async def test_an_authority_that_can_answer_nobody_is_left_alone(
    guarded: Any, service: Service, status: int
) -> None:
    ask = await guarded({"metadata": {"m": {"http": {"url": service.url}}}})
    service.fault = status
    for _ in range(authority.FAILURES * 2):
        assert (await refused(ask())).code is Code.UNAVAILABLE
    assert len(service.requests) == authority.FAILURES


async def test_a_token_that_user_info_does_not_take_is_not_valid(
    guarded: Any, service: Service
) -> None:
    info = {"userInfoUrl": f"{service.url}/userinfo"}
    ask = await guarded({"metadata": {"info": {"userInfo": info}}})
    service.fault = 401
    for _ in range(authority.FAILURES * 2):
        denial = await refused(ask("ended"))
        assert (denial.code, denial.rule) == (Code.UNAUTHENTICATED, "metadata.info")
    service.fault = None
    await ask("good")


async def test_the_log_has_no_secret_that_went_into_a_url(
    guarded: Any, kube: KubeApi, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    await kube.put("talker", {"psk": b"s3cret"})
    call = {
        "url": f"{service.url}/x",
        "sharedSecretRef": {"name": "talker", "key": "psk"},
        "credentials": {"queryString": {"name": "k"}},
    }
    ask = await guarded({"namespace": "models", "metadata": {"m": {"http": call}}}, kube=kube)
    service.fault = 404
    assert (await refused(ask())).reason == f"{service.url}/x answered 404"
    service.fault = b" " * (authority.MAX_ANSWER_BYTES + 1)
    await refused(ask())
    assert "more than" in caplog.text
    assert "s3cret" not in caplog.text
