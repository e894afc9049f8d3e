"""What is fetched about a request besides, for conditions."""

from typing import Any

import orjson
import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth import rule as compiled
from rayserve_platform.edge.auth.denial import Denial
from tests.authorities import Issuer, Service
from tests.kube import KubeApi


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


def rule(username: str, **fields: Any) -> dict[str, Any]:
    return {"plain": {"expression": f"{{'username': '{username}'}}"}, **fields}


async def test_metadata_is_fetched_for_conditions(guarded: Any, service: Service) -> None:
    service.content = {"tier": "paid"}
    rules = {
        "authentication": {"a": rule("alice")},
        "metadata": {
            "billing": {
                "http": {
                    "urlExpression": f"'{service.url}/users/' + auth.identity.username",
                    "method": "POST",
                    "contentType": "application/json",
                    "bodyParameters": {"path": {"selector": "request.path"}},
                    "headers": {"x-app": {"value": "rayserve"}},
                }
            }
        },
        "authorization": {
            "paid": {"patternMatching": {"patterns": [
                {"selector": "auth.metadata.billing.tier", "operator": "eq", "value": "paid"}]}}
        },
    }  # fmt: skip
    ask = await guarded(rules)
    await ask()
    [sent] = service.received
    assert (sent["method"], sent["path"]) == ("POST", "/users/alice")
    assert sent["body"] == '{"path":"/v1/x"}'
    assert sent["headers"]["x-app"] == "rayserve"
    service.content = {"tier": "free"}
    assert (await refused(ask())).code is Code.PERMISSION_DENIED


async def test_metadata_that_can_not_be_fetched_is_an_outage_not_a_hole(
    guarded: Any, service: Service
) -> None:
    rules = {
        "metadata": {"risk": {"http": {"url": service.url}}},
        "authorization": {"ok": {"patternMatching": {"patterns": [
            {"selector": "auth.metadata.risk.level", "operator": "neq", "value": "high"}]}}},
    }  # fmt: skip
    service.content = {"level": "high"}
    ask = await guarded(rules)
    assert (await refused(ask())).code is Code.PERMISSION_DENIED
    for fault in (500, b"nonsense", "reset"):
        service.fault = fault
        assert (await refused(ask())).code is Code.UNAVAILABLE


async def test_metadata_is_kept_under_the_policys_key_for_each_caller(
    guarded: Any, service: Service
) -> None:
    service.content = {"n": 1}
    by_header = {"plain": {"selector": "request.headers.x-user"}}
    fetched = {"http": {"url": service.url}, "cache": {"key": {"selector": "request.path"}}}
    ask = await guarded({"authentication": {"u": by_header}, "metadata": {"m": fetched}})
    for user in ("a", "b", "a", "b"):
        await ask(headers={"x-user": user})
    assert len(service.received) == 2


async def test_what_is_kept_of_metadata_has_a_bound_in_bytes(
    guarded: Any, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "KEPT_BYTES", 3000)
    fetched = {"http": {"url": service.url}, "cache": {"key": {"selector": "request.path"}}}
    ask = await guarded({"metadata": {"m": fetched}})
    for content, paths, expected in (
        ({"x": 10 * "x"}, "abcabc", 3),  # all are kept
        ({"x": 1000 * "x"}, "defdef", 6),  # each pushes another out
        ({"x": 5000 * "x"}, "gg", 2),  # more than all may have: none is kept, and that is no fault
        (orjson.loads(300 * "[" + 300 * "]"), "hh", 2),  # too deep to be measured
    ):
        service.received.clear()
        service.content = content
        for path in paths:
            await ask(path=f"/{path}")
        assert len(service.received) == expected


async def test_user_info_is_asked_with_the_callers_token(guarded: Any, issuer: Issuer) -> None:
    jwt = {"issuerUrl": issuer.url, "audiences": ["rayserve"], "algorithms": ["RS256"]}
    rules = {
        "authentication": {"oidc": {"jwt": jwt}},
        "metadata": {"info": {"userInfo": {"identitySource": "oidc"}}},
        "authorization": {"ours": {"patternMatching": {"patterns": [
            {"predicate": "auth.metadata.info.email.endsWith('@example.org')"}]}}},
    }  # fmt: skip
    ask = await guarded(rules)
    assert (await ask(issuer.token())).id == "alice"
    assert ("GET", "/userinfo") in issuer.requests


async def test_a_shared_secret_goes_where_the_policy_says(
    guarded: Any, kube: KubeApi, service: Service
) -> None:
    await kube.put("talker", {"psk": b"s3cret\n"})
    call = {"url": service.url, "sharedSecretRef": {"name": "talker", "key": "psk"}}
    places = {
        "a": {},
        "b": {"customHeader": {"name": "x-psk"}},
        "c": {"queryString": {"name": "k"}},
    }
    rules = {name: {"http": {**call, "credentials": place}} for name, place in places.items()}
    ask = await guarded({"namespace": "models", "metadata": rules}, kube=kube)
    await ask()
    sent = service.received
    assert {one["headers"].get("authorization") for one in sent} == {None, "Bearer s3cret"}
    assert {one["headers"].get("x-psk") for one in sent} == {None, "s3cret"}
    assert {one["path"] for one in sent} == {"/", "/?k=s3cret"}
