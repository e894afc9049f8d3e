"""Whatever a caller sends as a token is refused; it never fails the server."""

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.guard import Guard
from rayserve_platform.edge.auth.kubernetes import written as selector_of
from rayserve_platform.settings.auth.app import Auth
from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.auth.values import LabelSelector
from tests.authorities import Issuer, running

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "x5u", "zip", "enc"]
)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=5)


@pytest.fixture(scope="module")
def decide() -> Any:
    """Decides upon headers, on a loop of its own: hypothesis is not asynchronous."""
    loop = asyncio.new_event_loop()
    issuer = Issuer("EC")

    async def start() -> tuple[Any, Guard]:
        context = running(issuer)
        await context.__aenter__()
        jwt = {"issuerUrl": issuer.url, "audiences": ["rayserve"], "algorithms": ["ES256"]}
        places = {
            "custom": {"customHeader": {"name": "x-key"}},
            "cookie": {"cookie": {"name": "s"}},
        }
        rules: dict[str, Any] = {"bearer": {"jwt": jwt}}
        rules |= {name: {"jwt": jwt, "credentials": place} for name, place in places.items()}
        rules["query"] = {"jwt": jwt, "credentials": {"queryString": {"name": "k"}}}
        policy = Policy.model_validate({"authentication": rules})
        guard = Guard(Auth(policy=policy), policy)
        await guard.start()
        return context, guard

    context, guard = loop.run_until_complete(start())

    def run(headers: list[tuple[str, str]], query: str = "") -> Code:
        request = Request(id="r", protocol="openai", query=query, headers=dict(headers))

        async def ask() -> Code:
            try:
                await guard.decide(Credentials(headers, query), request, None)
            except PlatformError as error:
                return error.code
            raise AssertionError("somebody was let in")

        return loop.run_until_complete(ask())

    yield run
    loop.run_until_complete(guard.stop())
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


@given(header=HEADERS, claims=VALUES, signature=st.text("AZaz09-_=", max_size=90))
def test_a_forged_token_is_refused(decide: Any, header: Any, claims: Any, signature: str) -> None:
    for fixed in ({}, {"alg": "ES256", "kid": "first"}, {"alg": "ES256"}):
        token = f"{part({**header, **fixed})}.{part(claims)}.{signature}"
        assert decide([("authorization", f"Bearer {token}")]) is Code.UNAUTHENTICATED


@given(value=st.text(max_size=60), query=st.text(max_size=60))
def test_any_text_is_no_credential(decide: Any, value: str, query: str) -> None:
    for headers in (
        [("authorization", value)],
        [("authorization", f"Bearer {value}")],
        [("x-key", value)],
        [("cookie", value)],
        [("cookie", f"s={value}")],
    ):
        assert decide(headers, query) is Code.UNAUTHENTICATED
    code = decide([], f"k={value}")
    assert code in (Code.UNAUTHENTICATED, Code.INVALID_ARGUMENT)


def test_a_deeply_nested_token_is_refused(decide: Any) -> None:
    for depth in (500, 2900):
        nested = "[" * depth + "]" * depth
        head = base64.urlsafe_b64encode(nested.encode()).rstrip(b"=").decode()
        header = part({"alg": "ES256", "kid": "first"})
        assert decide([("authorization", f"Bearer {head}.e30.AA")]) is Code.UNAUTHENTICATED
        assert decide([("authorization", f"Bearer {header}.{head}.AA")]) is Code.UNAUTHENTICATED


def test_a_selector_is_written_as_kubernetes_reads_it() -> None:
    requirement = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "env", "operator": "NotIn", "values": ["dev"]},
        {"key": "team", "operator": "Exists"},
        {"key": "old", "operator": "DoesNotExist"},
    ]
    selector = LabelSelector.model_validate(
        {"matchLabels": {"app": "x"}, "matchExpressions": requirement}
    )
    assert selector_of(selector) == "app=x,tier in (a,b),env notin (dev),team,!old"
