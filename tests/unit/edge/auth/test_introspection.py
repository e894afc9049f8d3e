"""Opaque tokens that an OAuth2 server is asked about, alone and beside other authorities."""

from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.denial import Denial
from tests.authorities import Issuer
from tests.kube import KubeApi


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


async def test_any_authority_that_knows_the_caller_is_enough(
    kube: KubeApi, guarded: Any, issuer: Issuer
) -> None:
    kube.account("good", "tenant-a:bot")
    issuer.fault = "hang"
    issuer.opaque = {"opaque": {"active": True, "username": "olga"}}
    await kube.put("oauth", {"clientID": b"id", "clientSecret": b"s"})
    rules = {
        "namespace": "models",
        "authentication": {
            "opaque": introspection(issuer),
            "kube": {"kubernetesTokenReview": {"audiences": ["rayserve"]}},
        },
    }
    ask = await guarded(rules, kube=kube, budget_s=30)
    assert (await ask("good")).rule == "kube", "an authority that hangs holds up nobody else's"
    issuer.fault = None
    assert (await ask("opaque")).rule == "opaque"


def introspection(issuer: Issuer, **fields: Any) -> dict[str, Any]:
    asked = {"endpoint": f"{issuer.url}/introspect", "credentialsRef": {"name": "oauth"}}
    return {"oauth2Introspection": {**asked, **fields}}


async def test_an_opaque_token_is_introspected_with_the_clients_credentials(
    kube: KubeApi, guarded: Any, issuer: Issuer
) -> None:
    await kube.put("oauth", {"clientID": b"my id", "clientSecret": b"s:e/c"})
    issuer.opaque = {"t": {"active": True, "username": "olga", "scope": "infer"}}
    rules = {"namespace": "models", "authentication": {"o": introspection(issuer)}}
    ask = await guarded(rules, kube=kube)
    principal = await ask("t")
    assert (principal.id, principal.claims["scope"]) == ("olga", "infer")
    # RFC 6749, section 2.3.1: both are form-encoded, and then joined.
    assert issuer.introspected_by == ["Basic bXklMjBpZDpzJTNBZSUyRmM="]
    assert (await refused(ask("other"))).code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b'{"active": "true"}', b'{"active": 1}', b'{"active": true, "exp": "soon"}'],
    ids=str,
)
async def test_an_introspection_that_is_nonsense_is_an_outage(
    kube: KubeApi, guarded: Any, issuer: Issuer, body: bytes
) -> None:
    await kube.put("oauth", {"clientID": b"id", "clientSecret": b"s"})
    issuer.fault = body
    rules = {"namespace": "models", "authentication": {"o": introspection(issuer)}}
    ask = await guarded(rules, kube=kube)
    assert (await refused(ask("t"))).code is Code.UNAVAILABLE


async def test_an_introspected_token_counts_no_longer_than_its_expiry(
    kube: KubeApi, guarded: Any, issuer: Issuer
) -> None:
    await kube.put("oauth", {"clientID": b"id", "clientSecret": b"s"})
    issuer.opaque = {"t": {"active": True, "sub": "olga", "exp": 1}}
    rules = {"namespace": "models", "authentication": {"o": introspection(issuer)}}
    ask = await guarded(rules, kube=kube)
    await ask("t")
    issuer.opaque = {}
    assert (await refused(ask("t"))).code is Code.UNAUTHENTICATED


async def test_a_secret_may_be_mounted_in_place_of_read(
    guarded: Any, issuer: Issuer, tmp_path: Any
) -> None:
    (tmp_path / "oauth").mkdir()
    (tmp_path / "oauth/clientID").write_text("id\n")
    (tmp_path / "oauth/clientSecret").write_text("s\n")
    issuer.opaque = {"t": {"active": True, "client_id": "svc"}}
    ask = await guarded({"authentication": {"o": introspection(issuer)}}, secrets_dir=str(tmp_path))
    assert (await ask("t")).id == "svc"
    (tmp_path / "oauth/clientSecret").unlink()
    assert (await refused(ask("u"))).code is Code.UNAVAILABLE
