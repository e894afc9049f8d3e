"""What conditions and values of a policy mean, and that what can't be evaluated denies."""

from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.conditions import Computed
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault, Expression, PolicyFault, matches
from rayserve_platform.edge.auth.selector import Selector
from rayserve_platform.settings.auth.values import Value
from tests.kube import KubeApi

ROOTS = {
    "auth": {
        "identity": {
            "username": "alice",
            "groups": ["ml", "staff"],
            "realm.access": {"roles": ["a"]},
            "age": 41,
            "ok": True,
            "nothing": None,
            "fullname": "Alice B. Carol",
        }
    },
    "request": {"huge": 2**70},
    "context": {"request": {"http": {"headers": {"authorization": "Bearer abc", "x": "QQ=="}}}},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("auth.identity.username", "alice"),
        ("auth.identity.groups.1", "staff"),
        ("auth.identity.groups.#", 2),
        ("auth.identity.groups.7", None),
        ("auth.identity.missing.deeper", None),
        (r"auth.identity.realm\.access.roles.0", "a"),
        ("auth.identity.age", 41),
        ("auth.identity.username.@case:upper", "ALICE"),
        ('auth.identity.fullname.@extract:{"sep":" ","pos":1}', "B."),
        ('auth.identity.fullname.@extract:{"pos":9}', None),
        ('auth.identity.fullname.@replace:{"old":"B. ","new":""}', "Alice Carol"),
        ("context.request.http.headers.x.@base64:decode", "A"),
        ("auth.identity.username.@base64:encode", "YWxpY2U="),
        ('context.request.http.headers.authorization.@extract:{"sep":" ","pos":1}', "abc"),
        ("auth.identity.fullname.@case:lower|@case:upper", "ALICE B. CAROL"),
        ("Hello {auth.identity.username}, {auth.identity.age}!", "Hello alice, 41!"),
        ("is {auth.identity.ok} and {auth.identity.nothing}.", "is true and ."),
    ],
)
def test_a_selector_reads_as_authorinos_documentation_says(path: str, value: Any) -> None:
    assert Selector(path, "here").value(ROOTS) == value


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"selector": "context.request.http.method"}, "PUT"),
        ({"selector": r"au\th.identity.sub"}, "alice"),
        ({"selector": "{request.path} of {model.name}"}, "/v1/x of llama"),
        ({"selector": '@extract:{"sep":"alice","pos":1}|@extract:{"sep":"llama"}'}, True),
        ({"selector": "auth.metadata.team.name"}, "red"),
        ({"expression": "metadata.team.name"}, "red"),
        ({"expression": "source.address + destination.host + model.adapter"}, "10.0.0.1hostsql"),
        (
            {"expression": "auth.identity.sub+request.method+context.request.http.path"},
            "alicePUT/v1/x",
        ),
        ({"expression": "model.name"}, "llama"),
        ({"expression": "auth.identity.age"}, 41),
    ],
)
def test_a_value_is_computed_from_whatever_it_names(value: Any, found: Any) -> None:
    request = Request(
        id="r", protocol="openai", method="PUT", path="/v1/x", host="host", source="10.0.0.1:1"
    )
    document = Document(request)
    document.identity = {"sub": "alice", "age": 41}
    document.metadata["team"] = {"name": "red"}
    computed = Computed(Value(**value), "here").of(
        document.of(Target(model="llama", adapter="sql"))
    )
    assert bool(computed) if found is True else computed == found


@pytest.mark.parametrize(
    "path",
    [
        *("", "a.", "a..b", "a.#(b==c)", "a.*", "a.@reverse", "a.@case:title", "a.@extract:{"),
        *("@case", "a.@replace:{}", "{a.@ugly}"),
    ],
)
def test_a_selector_that_is_not_supported_is_refused_when_it_is_read(path: str) -> None:
    with pytest.raises(PolicyFault, match=r"^here: "):
        Selector(path, "here")


@pytest.mark.parametrize("text", ["a ==", "unknown.x == 1", "request.method = 'x'", "f(1)", ""])
def test_an_expression_that_is_none_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(PolicyFault, match=r"^here: "):
        Expression(text, "here")


@pytest.mark.parametrize(
    "text",
    [
        *("auth.identity.missing", "auth.identity.groups[9] == 'x'", "1 / 0 == 1"),
        *("auth.identity.age", "'true'", "auth.identity.username < 1", "request.huge == 1"),
    ],
)
def test_an_expression_without_a_truth_value_does_not_hold(text: str) -> None:
    with pytest.raises(EvaluationFault):
        Expression(text, "here").holds(ROOTS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("auth.identity.groups.map(g, 'x-' + g)", ["x-ml", "x-staff"]),
        ("'a.b'.split('.')[1]", "b"),
        ("auth.identity[?'missing'].orValue('none')", "none"),
        ("{'name': auth.identity.username, 'n': [1, 2]}", {"name": "alice", "n": [1, 2]}),
        ("auth.identity.nothing", None),
        ("base64.encode(b'A')", "QQ=="),
    ],
)
def test_an_expression_has_the_value_that_cel_gives_it(text: str, value: Any) -> None:
    assert Expression(text, "here").value(ROOTS) == value


def test_a_fault_quotes_no_value_of_the_request() -> None:
    secret = "s3cret-token"
    roots = {"request": {"token": secret, "odd": object(), "n": 2**70}}
    for text in ("request.token", "request.odd == 1", "request.n == 1", "request.absent == 1"):
        with pytest.raises(EvaluationFault) as caught:
            Expression(text, "here").holds(roots)
        assert secret not in str(caught.value)


def test_a_regular_expression_takes_no_time_however_bad() -> None:
    assert not matches("^(a+)+$", "a" * 50_000 + "b")
    with pytest.raises(EvaluationFault):
        matches("(", "")


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


def pattern(**fields: Any) -> dict[str, Any]:
    return {"authorization": {"only": {"patternMatching": {"patterns": [fields]}}}}


PASS = [
    {"selector": "request.method", "operator": "eq", "value": "POST"},
    {"selector": "context.request.http.headers.x-tier", "operator": "neq", "value": "free"},
    {"selector": "request.path", "operator": "matches", "value": "^/v1/"},
    {"selector": "auth.identity.groups", "operator": "incl", "value": "ml"},
    {"selector": "auth.identity.groups", "operator": "excl", "value": "guests"},
    {"selector": "auth.identity.username", "operator": "incl", "value": "alice"},
    {"selector": "auth.identity.username", "operator": "excl", "value": "bob"},
    {"selector": "auth.identity.missing", "operator": "excl", "value": "alice"},
    {"predicate": "model.name == 'llama' && model.adapter == ''"},
    {"predicate": "request.headers['x-tier'] == 'paid' && request.api == 'openai'"},
    {"patternRef": "posts"},
    {"all": [{"patternRef": "posts"}, {"predicate": "true"}]},
    {"any": [{"predicate": "false"}, {"predicate": "auth.identity.groups.exists(g, g == 'ml')"}]},
    {"any": [{"predicate": "auth.identity.missing == 1"}, {"predicate": "true"}]},
]
FAIL = [
    {"selector": "request.method", "operator": "eq", "value": "GET"},
    {"selector": "auth.identity.groups", "operator": "incl", "value": "m"},
    {"selector": "auth.identity.groups", "operator": "excl", "value": "ml"},
    {"selector": "auth.identity.username", "operator": "incl", "value": "ali"},
    {"selector": "auth.identity.username", "operator": "excl", "value": "alice"},
    {"selector": "auth.identity.missing", "operator": "incl", "value": ""},
    {"predicate": "model.name == 'mixtral'"},
    {"predicate": "auth.identity.missing == 1"},
    {"predicate": "'yes'"},
    {"predicate": "request.headers['absent'] == 'x'"},
    {"all": [{"predicate": "true"}, {"predicate": "false"}]},
    {"any": [{"predicate": "false"}, {"predicate": "auth.identity.missing == 1"}]},
]
NAMED = {"posts": [{"selector": "request.method", "operator": "eq", "value": "POST"}]}
ALICE = {
    "plain": {"expression": "{'username': 'alice', 'groups': ['ml', 'staff']}"},
}


@pytest.mark.parametrize("fields", PASS, ids=str)
async def test_a_pattern_that_holds_lets_pass(guarded: Any, fields: Any) -> None:
    ask = await guarded(
        {**pattern(**fields), "patterns": NAMED, "authentication": {"alice": ALICE}}
    )
    assert (await ask(headers={"x-tier": "paid"})).id == "alice"


@pytest.mark.parametrize("fields", FAIL, ids=str)
async def test_a_pattern_that_does_not_hold_or_has_no_value_denies(
    guarded: Any, fields: Any
) -> None:
    ask = await guarded(
        {**pattern(**fields), "patterns": NAMED, "authentication": {"alice": ALICE}}
    )
    denial = await refused(ask(headers={"x-tier": "paid"}))
    assert denial.code is Code.PERMISSION_DENIED
    assert denial.message == "You are not allowed to do this."


FAULTY = [{"predicate": "request.headers['x-absent'] == 'x'"}]
"""Authorino skips a rule whose condition errors, and with it the check."""


async def test_a_policy_whose_condition_has_no_value_denies(guarded: Any) -> None:
    ask = await guarded({"when": FAULTY})
    assert (await refused(ask())).code is Code.PERMISSION_DENIED


async def test_an_authorization_whose_condition_has_no_value_denies(guarded: Any) -> None:
    rule = {"when": FAULTY, "patternMatching": {"patterns": [{"predicate": "true"}]}}
    ask = await guarded({"authorization": {"a": rule}})
    assert (await refused(ask())).code is Code.PERMISSION_DENIED


async def test_an_authentication_whose_condition_has_no_value_knows_nobody(guarded: Any) -> None:
    ask = await guarded({"authentication": {"a": {"when": FAULTY, "anonymous": {}}}})
    assert (await refused(ask())).code is Code.UNAUTHENTICATED


async def test_metadata_whose_condition_has_no_value_lets_nobody_pass(
    guarded: Any, service: Any
) -> None:
    rule = {"when": FAULTY, "http": {"url": service.url}}
    ask = await guarded({"metadata": {"m": rule}})
    assert (await refused(ask())).code is Code.UNAVAILABLE


async def test_a_policy_that_does_not_apply_asks_nobody_for_a_token(guarded: Any) -> None:
    policy = {
        "when": [{"selector": "request.path", "operator": "neq", "value": "/open"}],
        "authentication": {"k": {"jwt": {
            "issuerUrl": "http://127.0.0.1:9", "audiences": ["a"], "algorithms": ["RS256"]}}},
    }  # fmt: skip
    ask = await guarded(policy)
    assert (await ask(path="/open")).id == "anonymous"
    assert (await refused(ask(path="/closed"))).code is Code.UNAUTHENTICATED


async def test_a_rule_that_does_not_apply_is_passed_over(guarded: Any) -> None:
    for_admins = {
        "when": [{"selector": "request.path", "operator": "matches", "value": "^/admin"}],
        "patternMatching": {"patterns": [{"predicate": "false"}]},
    }
    ask = await guarded({"authorization": {"admins": for_admins}})
    await ask(path="/v1/x")
    assert (await refused(ask(path="/admin"))).code is Code.PERMISSION_DENIED


async def test_a_decision_is_made_for_the_model_and_its_adapter(guarded: Any) -> None:
    predicate = "model.name == 'llama' && model.adapter in ['', 'sql']"
    ask = await guarded(pattern(predicate=predicate))
    await ask(target=Target(model="llama"))
    await ask(target=Target(model="llama", adapter="sql"))
    for target in (Target(model="llama", adapter="law"), Target(model="sql")):
        assert (await refused(ask(target=target))).code is Code.PERMISSION_DENIED


async def test_a_cached_permission_is_one_models_and_one_callers(
    kube: KubeApi, guarded: Any
) -> None:
    kube.grant("a", verb="get", name="llama")
    by_header = {"plain": {"selector": "request.headers.x-user"}}
    rule = {
        "cache": {"key": {"value": "the same for all"}},
        "kubernetesSubjectAccessReview": {
            "user": {"selector": "auth.identity.username"},
            "resourceAttributes": {
                "name": {"expression": "model.name"},
                "verb": {"value": "get"},
            },
        },
    }
    policy = {"authentication": {"u": by_header}, "authorization": {"r": rule}}
    ask = await guarded(policy, kube=kube)
    await ask(headers={"x-user": "a"})
    for user, model in (("b", "llama"), ("a", "mixtral")):
        asking = ask(headers={"x-user": user}, target=Target(model=model))
        assert (await refused(asking)).code is Code.PERMISSION_DENIED
