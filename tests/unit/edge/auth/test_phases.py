"""Priorities, identities and their shaping, what goes on and what goes back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth import http, rpc
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.expression import PolicyFault
from rayserve_platform.edge.auth.keystore import Key
from rayserve_platform.edge.auth.opening import read_policy
from rayserve_platform.edge.keys.followed import FollowedFile
from rayserve_platform.edge.keys.store import ReloadingKeys
from rayserve_platform.edge.keys.token import mint, written
from tests.authorities import Issuer
from tests.kube import KubeApi


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


class Keys:
    """A key store with one key."""

    def __init__(self, key: Key | None) -> None:
        self.key = key

    def find(self, token: str) -> Key | None:
        return self.key if token == "rsp_good" else None

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


OWN: dict[str, Any] = {"authentication": {"own": {"apiKey": {}}}}


async def test_an_own_key_is_known_by_its_principal(guarded: Any) -> None:
    key = Key(id="k1", principal="alice", groups=("ml",), identity={"note": "laptop"})
    ask = await guarded(OWN, keys=Keys(key))
    principal = await ask("rsp_good")
    assert (principal.id, principal.key_id, principal.groups) == ("alice", "k1", ("ml",))
    assert principal.claims["note"] == "laptop"
    assert (await refused(ask("rsp_bad"))).code is Code.UNAUTHENTICATED


async def test_a_key_is_for_its_models_and_protocols_only(guarded: Any) -> None:
    key = Key(
        id="k1", principal="a", models=frozenset({"llama", "sql"}), protocols=frozenset({"openai"})
    )
    ask = await guarded(OWN, keys=Keys(key))
    await ask("rsp_good")
    await ask("rsp_good", target=Target(model="mixtral", adapter="sql"))
    for target in (Target(model="mixtral"), Target(model="llama", adapter="law")):
        denial = await refused(ask("rsp_good", target=target))
        assert (denial.code, denial.rule) == (Code.PERMISSION_DENIED, "key scope")
    assert (await refused(ask("rsp_good", protocol="tgis"))).code is Code.PERMISSION_DENIED


async def test_own_keys_that_are_not_read_yet_keep_out_only_who_sends_one(
    guarded: Any, issuer: Issuer, tmp_path: Path
) -> None:
    jwt = {"issuerUrl": issuer.url, "audiences": ["rayserve"], "algorithms": ["RS256"]}
    rules = {"own": {"apiKey": {}}, "oidc": {"jwt": jwt}}
    store = ReloadingKeys(FollowedFile(tmp_path / "keys.json"))
    ask = await guarded({"authentication": rules}, keys=store)
    assert (await ask(issuer.token())).id == "alice"
    assert (await refused(ask("junk"))).code is Code.UNAUTHENTICATED
    denial = await refused(ask(written(*mint())))
    assert (denial.code, denial.rule) == (Code.UNAVAILABLE, "authentication.own")
    assert str(tmp_path) not in denial.message


async def test_own_keys_need_a_store(guarded: Any) -> None:
    with pytest.raises(PolicyFault, match=r"authentication\.own: 'apiKey' needs a selector"):
        await guarded(OWN)


async def test_keys_that_no_rule_takes_are_refused(guarded: Any) -> None:
    for policy in ({}, {"authentication": {"a": rule("a")}}):
        with pytest.raises(PolicyFault, match="keys: no authentication rule takes them"):
            await guarded(policy, keys=Keys(None))


def test_a_policy_file_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    rules = "spec: {authentication: {a: &a {plain: {selector: x}}, b: {<<: *a, priority: 1}%s}}"
    path.write_text(rules % "", encoding="utf-8")
    assert list(read_policy(path).authentication) == ["a", "b"]
    path.write_text(rules % ", 'a': {anonymous: {}}", encoding="utf-8")
    with pytest.raises(PolicyFault, match="'a' stands there twice"):
        read_policy(path)


def rule(username: str, **fields: Any) -> dict[str, Any]:
    return {"plain": {"expression": f"{{'username': '{username}'}}"}, **fields}


async def test_a_lower_priority_is_tried_first(guarded: Any) -> None:
    ask = await guarded({"authentication": {"b": rule("b", priority=1), "a": rule("a")}})
    assert (await ask()).rule == "a"


async def test_the_next_priority_is_tried_when_one_knows_nobody(guarded: Any) -> None:
    fails = {"plain": {"selector": "auth.missing"}}
    ask = await guarded({"authentication": {"a": fails, "b": rule("b", priority=1)}})
    assert (await ask()).rule == "b"


async def test_one_authority_down_is_an_outage_unless_another_knows_the_caller(
    kube: KubeApi, guarded: Any, issuer: Issuer
) -> None:
    kube.account("good", "tenant-a:bot")
    jwt = {"issuerUrl": issuer.url, "audiences": ["rayserve"], "algorithms": ["RS256"]}
    rules = {
        "authentication": {
            "oidc": {"jwt": jwt},
            "kube": {"kubernetesTokenReview": {"audiences": ["rayserve"]}},
        }
    }
    token = issuer.token()
    await issuer.stop()
    ask = await guarded(rules, kube=kube)
    assert (await ask("good")).rule == "kube"
    assert (await refused(ask(token))).code is Code.UNAVAILABLE
    assert (await refused(ask("bad"))).code is Code.UNAUTHENTICATED, "it is no JWT"


@pytest.mark.parametrize("later", [{"anonymous": {}}, {"plain": {"expression": "{'a': 'b'}"}}])
async def test_while_an_authority_is_down_nobody_with_a_token_passes_as_anybody(
    kube: KubeApi, guarded: Any, later: Any
) -> None:
    review = {"kubernetesTokenReview": {"audiences": ["rayserve"]}}
    rules = {"authentication": {"kube": review, "rest": {**later, "priority": 1}}}
    await kube.stop()
    ask = await guarded(rules, kube=kube)
    assert (await refused(ask("some"))).code is Code.UNAVAILABLE
    assert (await ask()).rule == "rest"


async def test_defaults_and_overrides_shape_an_identity(guarded: Any) -> None:
    shaped = {
        "plain": {"expression": "{'username': 'a', 'tier': 'paid'}"},
        "defaults": {"tier": {"value": "free"}, "region": {"value": "eu"}},
        "overrides": {"username": {"expression": "'x-' + auth.identity.username"}},
    }
    ask = await guarded({"authentication": {"a": shaped}})
    claims = (await ask()).claims
    assert claims == {"username": "x-a", "tier": "paid", "region": "eu"}


async def test_an_override_without_a_value_knows_nobody(guarded: Any) -> None:
    shaped = rule("a", overrides={"tier": {"expression": "auth.identity.missing"}})
    ask = await guarded({"authentication": {"a": shaped}})
    assert (await refused(ask())).code is Code.UNAUTHENTICATED


async def test_credentials_are_found_where_the_rule_says(guarded: Any) -> None:
    places = {
        "header": {"customHeader": {"name": "X-API-KEY"}},
        "query": {"queryString": {"name": "api_key"}},
        "cookie": {"cookie": {"name": "session"}},
        "plain": {"authorizationHeader": {"prefix": ""}},
    }
    rules = {name: {"apiKey": {}, "credentials": place} for name, place in places.items()}
    ask = await guarded({"authentication": rules}, keys=Keys(Key(id="k", principal="p")))
    assert (await ask(headers={"x-api-key": "rsp_good"})).rule == "header"
    assert (await ask(query="a=b&api_key=rsp_good")).rule == "query"
    assert (await ask(headers={"cookie": "a=b; session=rsp_good"})).rule == "cookie"
    assert (await ask(headers={"authorization": "rsp_good"})).rule == "plain"
    assert (await refused(ask(headers={"x_api_key": "rsp_good"}))).code is Code.UNAUTHENTICATED
    for place in (
        {"query": "api_key=rsp_good&api_key=rsp_good"},
        {"headers": {"cookie": "session=rsp_good; session=rsp_good"}},
        {"query": "&".join("a=b" for _ in range(2000))},
    ):
        with pytest.raises(PlatformError) as caught:
            await ask(**place)
        assert caught.value.code is Code.INVALID_ARGUMENT


async def test_the_scheme_is_read_in_any_case_and_the_token_bounded(guarded: Any) -> None:
    ask = await guarded(OWN, keys=Keys(Key(id="k", principal="p")))
    assert (await ask(headers={"authorization": "bearer  rsp_good"})).id == "p"
    for header in ("Basic rsp_good", "Bearer", "Bearer ", "rsp_good", "Bearer rsp_good x",
                   "Bearer " + "x" * 8193, "Bearer rsp_goöd", "Bearer rsp\x00good"):  # fmt: skip
        denial = await refused(ask(headers={"authorization": header}))
        assert denial.code is Code.UNAUTHENTICATED


async def test_success_headers_and_metadata_go_on(guarded: Any) -> None:
    success = {
        "headers": {
            "x-tenant": {"plain": {"expression": "auth.identity.username"}},
            "who": {"key": "x-who", "json": {"properties": {
                "model": {"expression": "model.name"}, "n": {"value": 1}}}},
            "x-missing": {"plain": {"expression": "auth.identity.missing"}},
            "x-split": {"plain": {"expression": "'a\\r\\nx-admin: 1'"}},
            "x-else": {"plain": {"value": "x"}, "when": [{"predicate": "false"}]},
        },
        "dynamicMetadata": {"tier": {"plain": {"value": "paid"}}},
    }  # fmt: skip
    ask = await guarded({"authentication": {"a": rule("t1")}, "response": {"success": success}})
    principal = await ask()
    assert principal.headers == (("x-tenant", "t1"), ("x-who", '{"model":"llama","n":1}'))
    assert principal.metadata == {"tier": "paid"}


@pytest.mark.parametrize("name", ["content-length", "Host", "a b", "", "x:y", "transfer-encoding"])
async def test_a_header_that_frames_a_message_can_not_be_set(guarded: Any, name: str) -> None:
    headers = {name: {"plain": {"value": "x"}}}
    with pytest.raises(ValueError, match="can't set a header"):
        await guarded({"response": {"success": {"headers": headers}}})


async def test_deny_with_says_how_a_refusal_looks(guarded: Any) -> None:
    response = {
        "unauthenticated": {
            "code": 302,
            "message": {"value": "Log in."},
            "headers": {"Location": {"expression": "'https://login.example' + request.path"}},
        },
        "unauthorized": {"message": {"expression": "auth.identity.username + ' may not'"},
                         "body": {"value": "<p>no</p>"}},
    }  # fmt: skip
    by_header = {"plain": {"selector": "request.headers.x-user"}}
    never = {"patternMatching": {"patterns": [{"predicate": "false"}]}}
    rules = {"authentication": {"u": by_header}, "response": response}
    ask = await guarded({**rules, "authorization": {"no": never}})
    denial = await refused(ask(path="/v1/x"))
    assert (denial.status, denial.message) == (302, "Log in.")
    assert denial.headers == (("location", "https://login.example/v1/x"),)
    denial = await refused(ask(headers={"x-user": "eve"}))
    assert (denial.message, denial.body, denial.status) == ("eve may not", "<p>no</p>", None)


def test_nothing_that_is_known_of_a_refusal_is_lost_between_processes() -> None:
    import pickle

    denial = Denial(Code.PERMISSION_DENIED, "no", rule="r", reason="because")
    assert pickle.loads(pickle.dumps(denial)).code is Code.PERMISSION_DENIED


async def test_a_flood_of_junk_pushes_no_good_token_out(
    kube: KubeApi, guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayserve_platform.edge.auth import verdict

    monkeypatch.setattr(verdict, "MOST", 20)
    kube.account("good", "tenant-a:bot")
    ask = await guarded(
        {"authentication": {"k": {"kubernetesTokenReview": {"audiences": ["rayserve"]}}}}, kube=kube
    )
    await ask("good")
    junk = [ask(f"junk-{index}") for index in range(100)]
    found = await asyncio.gather(*junk, return_exceptions=True)
    assert {one.code for one in found if isinstance(one, Denial)} == {Code.UNAUTHENTICATED}
    asked = len(kube.reviews)
    await ask("good")
    assert len(kube.reviews) == asked


async def test_decisions_are_counted_and_their_reasons_written_down_without_tokens(
    guarded: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="rayserve.auth")
    never = {"patternMatching": {"patterns": [{"predicate": "model.name == 'llama'"}]}}
    rules = {**OWN, "authorization": {"only": never}}
    ask = await guarded(rules, keys=Keys(Key(id="k", principal="counted")))

    def count(rule: str, result: str) -> float:
        labels = {"rule": rule, "result": result}
        return REGISTRY.get_sample_value("rayserve_auth_decisions_total", labels) or 0

    before = [count("own", "allowed"), count("authorization.only", "permission_denied")]
    await ask("rsp_good")
    await refused(ask("rsp_good", target=Target(model="m")))
    await refused(ask("rsp_bad"))
    after = [count("own", "allowed"), count("authorization.only", "permission_denied")]
    assert [found - was for found, was in zip(after, before, strict=True)] == [1, 1]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "request r-1 of 'counted' is refused by authorization.only: the patterns don't hold",
        "request r-1 of '' is refused by authentication: own: no such API key",
    ]


async def test_a_header_of_the_policys_is_nobodys_else_s_in_any_spelling(guarded: Any) -> None:
    user = {"plain": {"selector": "auth.identity.username"}, "key": "X-User_Name"}
    ask = await guarded({"response": {"success": {"headers": {"user": user}}}})
    sent = [("x-user-name", "eve"), ("x_user_name", "eve"), ("X-User_name", "eve"), ("x-ok", "1")]
    assert rpc.stripped(sent, ask.guard) == {"x-ok": "1"}
    headers = [(name.encode(), value.encode()) for name, value in sent]
    scope = http.stripped({"headers": headers, "query_string": b""}, ask.guard)
    assert scope["headers"] == [(b"x-ok", b"1")]
