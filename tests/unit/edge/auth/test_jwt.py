"""Signed tokens of an OpenID Connect issuer, which runs on a real socket and rotates its keys."""

import asyncio
import base64
import json
import time
import warnings
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import OctKey, OKPKey, RSAKey

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.denial import Denial
from tests.authorities import Issuer


def policy_of(issuer: Issuer, **jwt: Any) -> dict[str, Any]:
    rule = {"issuerUrl": issuer.url, "audiences": ["rayserve"], "algorithms": ["RS256"], **jwt}
    return {"authentication": {"oidc": {"jwt": rule}}}


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


async def test_a_token_of_the_issuer_is_known_by_its_subject(issuer: Issuer, guarded: Any) -> None:
    ask = await guarded(policy_of(issuer))
    principal = await ask(issuer.token(groups=["ml", "staff"]))
    assert (principal.id, principal.rule) == ("alice", "oidc")
    assert principal.groups == ("ml", "staff")
    assert principal.claims["iss"] == issuer.url


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": None},
        {"aud": ["another", "third"]},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"exp": None},
        {"exp": int(time.time()) - 5},
        {"nbf": int(time.time()) + 600},
    ],
    ids=str,
)
async def test_a_token_for_others_or_another_time_is_refused(
    issuer: Issuer, guarded: Any, claims: dict[str, Any]
) -> None:
    ask = await guarded(policy_of(issuer))
    denial = await refused(ask(issuer.token(**claims)))
    assert denial.code is Code.UNAUTHENTICATED
    assert denial.message == "The credentials are not valid."
    assert denial.headers == (("www-authenticate", 'Bearer realm="oidc"'),)


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


async def test_an_unsigned_token_is_refused(issuer: Issuer, guarded: Any) -> None:
    ask = await guarded(policy_of(issuer))
    claims = {"iss": issuer.url, "aud": "rayserve", "sub": "mallory", "exp": time.time() + 600}
    for algorithm in ("none", "None", "NONE", ""):
        denial = await refused(ask(unsigned({"alg": algorithm, "kid": "first"}, claims)))
        assert denial.code is Code.UNAUTHENTICATED


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    issuer: Issuer, guarded: Any
) -> None:
    ask = await guarded(policy_of(issuer))
    public = issuer.keys["first"].as_dict(private=False)
    secret = OctKey.import_key({"kty": "oct", "k": public["n"]})
    claims = {"iss": issuer.url, "aud": "rayserve", "sub": "mallory", "exp": int(time.time()) + 60}
    forged = jwt.encode({"alg": "HS256", "kid": "first"}, claims, secret, algorithms=["HS256"])
    assert (await refused(ask(forged))).code is Code.UNAUTHENTICATED


async def test_a_token_of_another_key_under_a_known_id_is_refused(
    issuer: Issuer, guarded: Any
) -> None:
    ask = await guarded(policy_of(issuer))
    await ask(issuer.token())
    issuer.rotate("first")  # the same id, another key: as an attacker's would be
    issuer_token = issuer.token()
    assert (await refused(ask(issuer_token))).code is Code.UNAUTHENTICATED


async def test_an_algorithm_that_the_policy_does_not_name_is_refused(
    issuer: Issuer, guarded: Any
) -> None:
    issuer.rotate("ec", kind="EC")
    ask = await guarded(policy_of(issuer))
    assert (await refused(ask(issuer.token()))).code is Code.UNAUTHENTICATED
    both = await guarded(policy_of(issuer, algorithms=["RS256", "ES256"]))
    assert (await both(issuer.token())).id == "alice"


async def test_a_key_for_encryption_or_of_shared_secrets_is_passed_over(
    issuer: Issuer, guarded: Any
) -> None:
    own = RSAKey.generate_key(2048, {"kid": "enc"})
    for_encryption = own.as_dict(private=False, use="enc")
    odd = [
        {**for_encryption, "use": "sig", "key_ops": ops} for ops in (5, None, {"a": 1}, "verify")
    ]
    issuer.more_keys = [for_encryption, {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}, 7, *odd]
    ask = await guarded(policy_of(issuer))
    assert (await ask(issuer.token())).id == "alice"
    issuer.keys["enc"], issuer.signs_with = own, "enc"
    token = issuer.token()
    del issuer.keys["enc"]
    assert (await refused(ask(token))).code is Code.UNAUTHENTICATED


async def test_a_rotated_key_is_fetched_when_a_token_names_it(issuer: Issuer, guarded: Any) -> None:
    ask = await guarded(policy_of(issuer))
    old = issuer.token()
    await ask(old)
    issuer.rotate("second")
    assert (await ask(issuer.token())).id == "alice"
    denial = await refused(ask(old))
    assert denial.code is Code.UNAUTHENTICATED, "a key that was taken back counts no more"


async def test_unknown_keys_make_the_keys_be_fetched_once_in_a_while_only(
    issuer: Issuer, guarded: Any
) -> None:
    ask = await guarded(policy_of(issuer))
    await ask(issuer.token())
    before = len(issuer.requests)
    for kid in ("a", "b", "c"):
        assert (await refused(ask(issuer.token(header={"kid": kid})))).code is Code.UNAUTHENTICATED
    fetched = [path for _, path in issuer.requests[before:]]
    assert fetched.count("/keys") == 1


async def test_an_outage_does_not_drop_known_keys(
    issuer: Issuer, guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = await guarded(policy_of(issuer, ttl=1))
    token = issuer.token()
    await ask(token)
    await issuer.stop()
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 10)  # the keys are old now
    for _ in range(5):
        assert (await ask(token)).id == "alice"


async def test_keys_that_were_never_read_are_an_outage_not_a_bad_token(
    issuer: Issuer, guarded: Any
) -> None:
    await issuer.stop()
    ask = await guarded(policy_of(issuer))
    token = issuer.token()
    denial = await refused(ask(token))
    assert denial.code is Code.UNAVAILABLE
    assert denial.retry_after_s
    await issuer.start()
    assert (await ask(token)).id == "alice"


async def test_a_key_that_can_not_be_looked_up_is_an_outage_not_a_bad_token(
    issuer: Issuer, guarded: Any
) -> None:
    ask = await guarded(policy_of(issuer))
    await ask(issuer.token())
    issuer.rotate("second")
    issuer.fault = 500
    for _ in range(3):
        assert (await refused(ask(issuer.token()))).code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://elsewhere.example"},
        {"issuer": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
    ids=str,
)
async def test_a_discovery_document_that_is_not_the_issuers_is_not_believed(
    issuer: Issuer, guarded: Any, document: dict[str, Any]
) -> None:
    issuer.document = document
    ask = await guarded(policy_of(issuer))
    assert (await refused(ask(issuer.token()))).code is Code.UNAVAILABLE


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"keys": 3}', b'{"keys": []}', b"\xff"])
async def test_keys_that_are_nonsense_are_an_outage(
    issuer: Issuer, guarded: Any, body: bytes
) -> None:
    issuer.fault = body
    ask = await guarded(policy_of(issuer))
    assert (await refused(ask(issuer.token()))).code is Code.UNAVAILABLE


async def test_what_is_no_jwt_asks_nobody(issuer: Issuer, guarded: Any) -> None:
    ask = await guarded(policy_of(issuer))
    await ask(issuer.token())
    before = len(issuer.requests)
    for token in ("abc", "a.b", "a.b.c", "....", "e30.e30.e30", "x" * 8193, "é.é.é", "W10.e30.e30"):
        assert (await refused(ask(token))).code is Code.UNAUTHENTICATED
    assert len(issuer.requests) == before


async def test_keys_of_a_url_need_the_issuer_said(issuer: Issuer, guarded: Any) -> None:
    rule = {"jwksUrl": f"{issuer.url}/keys", "issuer": issuer.url}
    ask = await guarded(
        {
            "authentication": {
                "k": {"jwt": {**rule, "audiences": ["rayserve"], "algorithms": ["RS256"]}}
            }
        }
    )
    assert (await ask(issuer.token())).id == "alice"
    assert (await refused(ask(issuer.token(iss="other")))).code is Code.UNAUTHENTICATED


async def test_many_who_wait_for_keys_fetch_them_once(issuer: Issuer, guarded: Any) -> None:
    issuer.delay_s = 0.05
    ask = await guarded(policy_of(issuer))
    token = issuer.token()
    found = await asyncio.gather(*(ask(token) for _ in range(50)))
    assert {principal.id for principal in found} == {"alice"}
    assert [path for _, path in issuer.requests].count("/keys") == 1


async def test_a_callers_name_is_the_issuers_not_one_that_they_choose(
    issuer: Issuer, guarded: Any
) -> None:
    ask = await guarded(policy_of(issuer))
    assert (await ask(issuer.token(username="admin"))).id == "alice"


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
async def test_edwards_signatures_are_taken_without_silencing_all_warnings(
    issuer: Issuer, guarded: Any, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    issuer.keys["ed"] = OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"})
    issuer.signs_with = "ed"
    ask = await guarded(policy_of(issuer, algorithms=[algorithm]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        token = issuer.token(header={"alg": algorithm})
    assert (await ask(token)).id == "alice"  # now its keys are known
    with monkeypatch.context() as patched:
        patched.delattr(warnings, "catch_warnings")  # it is not safe where threads are
        assert (await ask(token)).id == "alice"
