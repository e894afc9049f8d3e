"""Policies in Rego: what they decide, and what of them is refused.

What the policies must decide follows from Open Policy Agent's documentation ("Policy Language",
"Comparing to Other Systems: Role-based access control"), whose style they are in.
"""

from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.authorization import rego
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.expression import PolicyFault
from rayserve_platform.edge.auth.selector import as_json

WHO: dict[str, Any] = {"u": {"plain": {"expression": "{'sub': request.headers['x-user']}"}}}
ROLES = """
import rego.v1

default allow := false

user_roles := {"alice": ["engineering", "webdev"], "bob": ["hr"]}

role_permissions := {
    "engineering": [{"action": "POST", "object": "llama"}],
    "webdev": [{"action": "GET", "object": "llama"}, {"action": "POST", "object": "mixtral"}],
    "hr": [{"action": "GET", "object": "llama"}],
}

# The user may do this if some role of theirs grants it.
allow if {
    some role in user_roles[input.auth.identity.sub]
    some grant in role_permissions[role]
    grant.action == input.context.request.http.method
    grant.object == input.model.name
}
"""
DENYING = """
deny contains "a stranger" if not startswith(input.auth.identity.sub, "staff-")
deny contains msg if {
    some name, value in input.request.headers
    name == "x-debug"
    msg := sprintf("debugging with %v", [value])
}
allow if count(deny) == 0
"""
CALLED: dict[str, Any] = {"target": Target(model="llama"), "headers": {"x-user": "alice"}}


def policy(text: str, *, who: Any = None, **opa: Any) -> dict[str, Any]:
    opa = {"rego": text, **opa}
    return {"authentication": who or WHO, "authorization": {"rego": {"opa": opa}}}


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


def workers(ask: Any) -> rego.Workers:
    found: rego.Workers = ask.guard._sources.rego
    return found


@pytest.mark.parametrize(
    ("user", "method", "model", "may"),
    [
        ("alice", "POST", "llama", True),
        ("alice", "GET", "llama", True),
        ("alice", "GET", "mixtral", False),
        ("alice", "POST", "mixtral", True),
        ("bob", "GET", "llama", True),
        ("bob", "POST", "llama", False),
        ("eve", "GET", "llama", False),
    ],
)
async def test_roles_decide_over_the_authorization_json(
    guarded: Any, user: str, method: str, model: str, may: bool
) -> None:
    ask = await guarded(policy(ROLES))
    asking = ask(target=Target(model=model), headers={"x-user": user}, method=method)
    if may:
        await asking
    else:
        denial = await refused(asking)
        assert (denial.code, denial.rule) == (Code.PERMISSION_DENIED, "authorization.rego")


@pytest.mark.parametrize(
    ("headers", "may"),
    [
        ({"x-user": "staff-1"}, True),
        ({"x-user": "eve"}, False),
        ({"x-user": "staff-1", "x-debug": "1"}, False),
    ],
)
async def test_rules_of_what_is_denied_decide_by_their_number(
    guarded: Any, headers: Any, may: bool
) -> None:
    ask = await guarded(policy(DENYING))
    if may:
        await ask(headers=headers)
    else:
        assert (await refused(ask(headers=headers))).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    "text",
    [
        'allow := "true"',
        "allow := 1",
        "allow := {true}",
        "allow := null",
        "allow if false",
        "allow if input.nothing",
        "allow if not true",
        "default allow := false",
    ],
)
@pytest.mark.parametrize("all_values", [True, False])
async def test_what_is_not_true_refuses(guarded: Any, text: str, all_values: bool) -> None:
    ask = await guarded(policy(text, allValues=all_values))
    assert (await refused(ask(**CALLED))).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    "text",
    [
        "# who may\nallow := true # everybody",
        'f(x) := "a" if x == 1\nelse := "b"\nallow if f(2) == "b"',
        "allow if { every name, value in input.request.headers { name != value } }",
        'allow if {\n  [_, end] := split(input.auth.identity.sub, "ic")\n  end == "e"\n}',
        'allow if {n: v | some n, v in input.request.headers} == {"x-user": "alice"}',
        'bob if input.auth.identity.sub == "b"\nallow if bob with input.auth.identity.sub as "b"',
        "allow if regex.match(`^/v1/(chat/)?x$`, input.context.request.http.path)",
        'p contains at if walk(input, [at, "alice"])\nallow if ["auth", "identity", "sub"] in p',
        'default f(_) := 1\nf(user) := 5 if user == "bob"\nallow if f("alice") == 1',
    ],
)
async def test_policies_of_many_kinds_are_understood(guarded: Any, text: str) -> None:
    await (await guarded(policy(text)))(**CALLED)


async def test_later_headers_see_allow_alone_or_all_rules(guarded: Any) -> None:
    text = """
    allow := true
    tier := "gold" if input.auth.identity.sub == "alice"
    quoted := sprintf("<%s>", [input.auth.identity.sub])
    numbers := {1, 2.5}
    """
    shown = {"plain": {"expression": "string(auth.authorization.rego.tier)"}}
    every = {"json": {"properties": {"all": {"expression": "auth.authorization.rego"}}}}
    headers: dict[str, Any] = {"x-all": every}
    ask = await guarded({**policy(text), "response": {"success": {"headers": headers}}})
    found = dict((await ask(**CALLED)).headers)
    assert found["x-all"] == '{"all":{"allow":true}}'
    headers = {"x-tier": shown, "x-all": every}
    wide = policy(text, allValues=True)
    ask = await guarded({**wide, "response": {"success": {"headers": headers}}})
    found = dict((await ask(**CALLED)).headers)
    assert found["x-tier"] == "gold"
    assert '"quoted":"<alice>"' in found["x-all"]
    assert '"numbers":[1,2.5]' in found["x-all"]


@pytest.mark.parametrize(
    "user",
    ['a","allow":true,"z":"b', "back\\slash", "new\\nline", "tab\tbed", "é😀", "\\u0041", "\x01"],
)
async def test_a_text_of_a_callers_is_nothing_but_a_text(guarded: Any, user: str) -> None:
    text = """
    same := input.auth.identity.sub == input.request.headers["x-user"]
    said := sprintf("%s!", [input.auth.identity.sub])
    quoted := input.auth.identity.sub
    admin if input.auth.identity.sub == "A"
    admin if input.auth.identity.sub == "new\\nline"
    allow if input.request.path == "/v1/allowed"
    """
    ask = await guarded(policy(text, allValues=True))
    headers = {"x-user": user}
    assert (await refused(ask(headers=headers))).code is Code.PERMISSION_DENIED
    found = (await workers(ask).evaluate(0, as_json({"auth": {"identity": {"sub": user}}})))[0]
    assert found == {"said": f"{user}!", "quoted": user}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x := 1\nallow if {", "line 2: this is unclosed"),
        ("allow := := 1", "line 1: Invalid assignment operator"),
        ("package mine\nallow := true", "line 1"),
        ("permit := true", "has no rule 'allow'"),
        # A `not` of each of these would hold.
        ('deny if usr.name == "x"\nallow if not deny', "line 1: a variable has no value"),
        ("\nallow if not x == 1", "line 2: a variable has no value"),
        ("bad if input.a[i] == input.b[j]\nallow if not bad", "line 1: a variable has no value"),
        ("allow if not nofunction(1)", "there is no function 'nofunction'"),
        ('allow if not http.send({"method": "get", "url": "http://x"})', "no function 'http.send'"),
        ("a if b\nb if a\nallow if not a", "a rule depends on itself"),
        ("default allow := false\ndefault allow := true", "rules contradict each other"),
    ],
)
async def test_a_policy_that_can_not_be_used_is_refused_at_load(
    guarded: Any, text: str, said: str
) -> None:
    with pytest.raises(PolicyFault) as caught:
        await guarded(policy(text))
    assert str(caught.value).startswith("authorization.rego.opa.rego: ")
    assert said in str(caught.value)


async def test_without_the_extra_a_policy_is_refused_by_its_name(
    guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rego, "find_spec", lambda name: None)
    with pytest.raises(PolicyFault, match=r"Rego needs the extra: pip install '\.\[rego\]'"):
        await guarded(policy("allow := true"))


@pytest.mark.parametrize(
    "text",
    [
        "allow if not to_number(input.auth.identity.sub) > 3",
        "allow if not 1 / (count(input.auth.identity.sub) - 5) == 1",
        "allow := true if true\nallow := false if input.auth.identity.sub",
    ],
)
async def test_a_policy_that_has_no_value_is_no_verdict(guarded: Any, text: str) -> None:
    ask = await guarded(policy(text))
    denial = await refused(ask(**CALLED))
    assert (denial.code, denial.rule) == (Code.UNAVAILABLE, "authorization.rego")


async def test_an_input_beyond_its_bounds_is_not_evaluated(guarded: Any) -> None:
    ask = await guarded(policy("allow := true"))
    headers = {**CALLED["headers"], "x-long": "x" * rego.MAX_BYTES}
    denial = await refused(ask(target=CALLED["target"], headers=headers))
    assert (denial.code, f"{rego.MAX_BYTES} bytes" in denial.reason) == (Code.UNAVAILABLE, True)
    deep = "[" * (rego.MAX_DEPTH - 2) + "]" * (rego.MAX_DEPTH - 2)
    who = {"u": {"plain": {"expression": "{'deep': " + deep + "}"}}}
    ask = await guarded(policy("allow := true", who=who))
    denial = await refused(ask())
    assert (denial.code, "32 levels" in denial.reason) == (Code.UNAVAILABLE, True)


async def test_a_result_beyond_its_bounds_is_none(guarded: Any) -> None:
    text = "allow := true\nlong := [n | some n in numbers.range(1, 20000)]"
    ask = await guarded(policy(text, allValues=True))
    assert (await refused(ask(**CALLED))).code is Code.UNAVAILABLE


async def test_a_cached_verdict_is_the_callers_and_the_models_own(guarded: Any) -> None:
    own = policy(ROLES)
    own["authorization"]["rego"]["cache"] = {"key": {"value": "same"}, "ttl": 60}
    ask = await guarded(own)
    await ask(**CALLED)
    await workers(ask).stop()
    await ask(**CALLED)
    for user, model in (("bob", "llama"), ("alice", "mixtral")):
        denial = await refused(ask(target=Target(model=model), headers={"x-user": user}))
        assert denial.code is Code.UNAVAILABLE


async def test_policies_see_nothing_of_the_environment(
    guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSERVE_SECRET", "s3cret")
    text = 'allow if not "RAYSERVE_SECRET" in object.keys(opa.runtime().env)'
    await (await guarded(policy(text)))(**CALLED)
