"""Tokens that the Kubernetes API reviews, and access by its RBAC."""

import json
from pathlib import Path
from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.denial import Denial
from tests.kube import KubeApi

ANSWERS = json.loads(
    (Path(__file__).parents[3] / "data/kubernetes/api_answers.json").read_text(encoding="utf-8")
)
"""Recorded from a real kube-apiserver."""

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


async def test_a_service_account_may_call_what_its_role_names(kube: KubeApi, guarded: Any) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, verb="get", resource="inferenceservices", namespace="models", name="llama")
    ask = await guarded(policy(), kube=kube)
    principal = await ask("good")
    assert (principal.id, principal.rule) == (BOT, "kubernetes-user")
    denial = await refused(ask("good", target=Target(model="mixtral")))
    assert denial.code is Code.PERMISSION_DENIED
    assert denial.rule == "authorization.kubernetes-rbac"


@pytest.mark.parametrize("path", ["auth.identity.user.username", "auth.identity.username"])
async def test_a_users_name_is_where_authorino_has_it_and_on_top(
    kube: KubeApi, guarded: Any, path: str
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, verb="get", name="llama")
    rules = policy()
    rules["authorization"]["kubernetes-rbac"]["kubernetesSubjectAccessReview"]["user"] = {
        "selector": path
    }
    ask = await guarded(rules, kube=kube)
    assert (await ask("good")).id == BOT
    assert kube.reviews[-1]["user"] == BOT


async def test_the_api_is_asked_about_uid_groups_and_extra_as_well(
    kube: KubeApi, guarded: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    user = kube.users["good"][0]
    user["extra"] = {"authentication.kubernetes.io/pod-name": ["a-pod"]}
    kube.grant("system:serviceaccounts:tenant-a", verb="get", name="llama")
    ask = await guarded(policy(), kube=kube)
    await ask("good")
    spec = kube.reviews[-1]
    assert (spec["user"], spec["uid"], spec["extra"]) == (BOT, user["uid"], user["extra"])
    assert "system:serviceaccounts:tenant-a" in spec["groups"]
    assert spec["resourceAttributes"]["name"] == "llama"


async def test_a_token_for_another_audience_is_refused(kube: KubeApi, guarded: Any) -> None:
    kube.account("other", "tenant-a:bot", audiences=["https://kubernetes.default.svc"])
    ask = await guarded(policy(), kube=kube)
    assert (await refused(ask("other"))).code is Code.UNAUTHENTICATED


async def test_a_server_that_knows_no_audiences_is_not_believed(
    kube: KubeApi, guarded: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.knows_audiences = False
    ask = await guarded(policy(), kube=kube)
    denial = await refused(ask("good"))
    assert denial.code is Code.UNAUTHENTICATED
    assert "is for None" in denial.reason


RECORDED_TOKENS = {
    "TR aud match": None,
    "TR one of two": None,
    "TR aud mismatch": Code.UNAUTHENTICATED,
    "TR junk": Code.UNAUTHENTICATED,
    "TR tampered": Code.UNAUTHENTICATED,
    # Authenticated, and for another audience than the policy's.
    "TR static token no aud": Code.UNAUTHENTICATED,
    "TR no audiences, default token": Code.UNAUTHENTICATED,
    "TR empty": Code.UNAVAILABLE,
    # The replica's own service account lacks the right to ask: nothing about the caller is known.
    "TR no auth": Code.UNAVAILABLE,
    "TR sa without rights": Code.UNAVAILABLE,
}


@pytest.mark.parametrize("case", RECORDED_TOKENS)
async def test_a_real_servers_answer_to_a_token_review_is_understood(
    kube: KubeApi, guarded: Any, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, answer = ANSWERS[case]
    monkeypatch.setattr(kube, "answer", recorded("TokenReview", status, answer))
    ask = await guarded({"authentication": policy()["authentication"]}, kube=kube)
    if RECORDED_TOKENS[case] is None:
        assert (await ask("any")).id == answer["user"]["username"]
    else:
        assert (await refused(ask("any"))).code is RECORDED_TOKENS[case]


RECORDED_ACCESS = {
    "SAR allowed": None,
    "SAR nonresource": None,
    "SAR groups only masters": None,
    "SAR other name": Code.PERMISSION_DENIED,
    "SAR other ns": Code.PERMISSION_DENIED,
    "SAR verb case": Code.PERMISSION_DENIED,
    "SAR no user/groups": Code.UNAVAILABLE,
    "SAR none": Code.UNAVAILABLE,
}


@pytest.mark.parametrize("case", RECORDED_ACCESS)
async def test_a_real_servers_answer_to_an_access_review_is_understood(
    kube: KubeApi, guarded: Any, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, answer = ANSWERS[case]
    monkeypatch.setattr(kube, "answer", recorded("SubjectAccessReview", status, answer))
    asked = policy()["authorization"]
    asked["kubernetes-rbac"]["kubernetesSubjectAccessReview"]["user"] = {"value": "bot"}
    ask = await guarded({"authorization": asked}, kube=kube)
    if RECORDED_ACCESS[case] is None:
        await ask()
    else:
        assert (await refused(ask())).code is RECORDED_ACCESS[case]


def recorded(kind: str, status: int, content: Any) -> Any:
    """Answer as was recorded: a review with this `status`, or an error with these parts."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.StreamResponse:
        body = {"kind": kind, "status": content} if status == 201 else {"kind": "Status", **content}
        return web.json_response(body, status=status)

    return answer


@pytest.mark.parametrize(
    "fault",
    [
        *(500, 429, 401, 302, "reset", b"", b"[]", b'"x"', b"{", b'{"kind":"Status"}'),
        b'{"kind":"TokenReview"}',
        b'{"kind":"TokenReview","status":{"authenticated":"yes"}}',
        b'{"kind":"TokenReview","status":{"authenticated":true,"audiences":["rayserve"]}}',
    ],
    ids=str,
)
async def test_a_server_that_answers_nonsense_is_an_outage(
    kube: KubeApi, guarded: Any, fault: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.fault = fault
    ask = await guarded(policy(), kube=kube)
    denial = await refused(ask("good"))
    assert denial.code is Code.UNAVAILABLE
    assert denial.retry_after_s
    assert "127.0.0.1" not in denial.message
    assert "Traceback" not in denial.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"SubjectAccessReview","status":{"allowed":"true"}}',
        b'{"kind":"SubjectAccessReview","status":{"allowed":1}}',
        b'{"kind":"SubjectAccessReview","status":{}}',
        b'{"kind":"TokenReview","status":{}}',
    ],
    ids=str,
)
async def test_an_access_review_that_is_nonsense_lets_nobody_in(
    kube: KubeApi, guarded: Any, body: bytes
) -> None:
    kube.fault = body
    asked = policy()["authorization"]
    asked["kubernetes-rbac"]["kubernetesSubjectAccessReview"]["user"] = {"value": "bot"}
    ask = await guarded({"authorization": asked}, kube=kube)
    assert (await refused(ask())).code is Code.UNAVAILABLE


async def test_without_audiences_the_policys_hosts_are_taken_and_never_the_requests(
    kube: KubeApi, guarded: Any
) -> None:
    rule: Any = {"k": {"kubernetesTokenReview": {}}}
    ask = await guarded({"hosts": ["llama.models.svc"], "authentication": rule}, kube=kube)
    await refused(ask("any", headers={"host": "attacker.example"}, host="attacker.example"))
    assert kube.reviews[-1]["audiences"] == ["llama.models.svc"]
    for hosts in ([], ["*.models.svc"]):
        with pytest.raises(ValueError, match="'audiences' is required"):
            await guarded({"hosts": hosts, "authentication": rule}, kube=kube)


async def test_an_access_review_without_resource_is_about_the_path(
    kube: KubeApi, guarded: Any
) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant(BOT, path="/v1/x", verb="post")
    rules = policy()
    del rules["authorization"]["kubernetes-rbac"]["kubernetesSubjectAccessReview"][
        "resourceAttributes"
    ]
    ask = await guarded(rules, kube=kube)
    await ask("good")
    assert (await refused(ask("good", path="/v1/y"))).code is Code.PERMISSION_DENIED


async def test_groups_of_a_policy_are_asked_about(kube: KubeApi, guarded: Any) -> None:
    kube.account("good", "tenant-a:bot")
    kube.grant("ml", name="llama")
    review = {
        "authorizationGroups": {"expression": "['ml', 'staff']"},
        "resourceAttributes": {"name": {"expression": "model.name"}, "verb": {"value": "get"}},
    }
    rules = {**policy(), "authorization": {"a": {"kubernetesSubjectAccessReview": review}}}
    ask = await guarded(rules, kube=kube)
    await ask("good")
    assert kube.reviews[-1]["groups"] == ["ml", "staff"]
    assert "user" not in kube.reviews[-1]


async def test_without_a_kubernetes_api_nobody_is_let_in(guarded: Any) -> None:
    ask = await guarded(policy())
    assert (await refused(ask("good"))).code is Code.UNAVAILABLE
