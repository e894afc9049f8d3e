"""An AuthConfig as settings: a real manifest fits, and what is not supported is refused by name."""

import types
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rayserve_platform.settings.app import Ingress
from rayserve_platform.settings.auth.app import Auth
from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.model import explain

FIELDS = (
    (Path(__file__).parents[2] / "data/authorino/fields.txt").read_text(encoding="utf-8").split()
)

ODH: dict[str, Any] = {
    "apiVersion": "authorino.kuadrant.io/v1beta3",
    "kind": "AuthConfig",
    "metadata": {"name": "llama", "namespace": "models", "labels": {"app": "x"}},
    "spec": {
        "hosts": ["llama.example", "llama.models.svc"],
        "authentication": {
            "kubernetes-user": {
                "credentials": {"authorizationHeader": {}},
                "kubernetesTokenReview": {"audiences": ["https://kubernetes.default.svc"]},
                "metrics": False,
                "priority": 0,
            }
        },
        "authorization": {
            "kubernetes-rbac": {
                "kubernetesSubjectAccessReview": {
                    "user": {"selector": "auth.identity.user.username"},
                    "resourceAttributes": {
                        "group": {"value": "serving.kserve.io"},
                        "name": {"value": "llama"},
                        "namespace": {"value": "models"},
                        "resource": {"value": "inferenceservices"},
                        "verb": {"value": "get"},
                    },
                }
            }
        },
    },
}
"""The shape of what OpenShift AI generated for an InferenceService."""


def problems(content: Any, kind: type[BaseModel] = Policy) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(content)
    return "; ".join(explain(caught.value))


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes that a field's type holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is types.UnionType or typing.get_args(annotation):
        return [found for one in typing.get_args(annotation) for found in models_in(one)]
    return []


def known(kind: type[BaseModel], parts: list[str]) -> bool:
    """Say whether a path is a field, or below one that is refused by name."""
    if not parts:
        return True
    name, *rest = parts
    if name in getattr(kind, "refused", {}):
        return True
    fields = {field.alias or own: field for own, field in kind.model_fields.items()}
    if name not in fields:
        return False
    while rest and rest[0] in ("*", "[]"):
        rest = rest[1:]
    if not rest:
        return True
    return any(known(inner, rest) for inner in models_in(fields[name].annotation))


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_of_authorino_is_read_or_refused_by_name(path: str) -> None:
    assert known(Policy, path.split("."))


def test_a_whole_manifest_its_spec_and_the_spec_alone_are_the_same() -> None:
    whole = Policy.model_validate(ODH)
    assert whole.namespace == "models"
    alone = Policy.model_validate({**ODH["spec"], "namespace": "models"})
    assert whole == alone
    assert whole == Policy.model_validate({"spec": ODH["spec"], "metadata": ODH["metadata"]})


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"metadata": {"m": {"uma": {}}}}, "metadata.m: 'uma' is not supported"),
        ({"authorization": {"a": {"spicedb": {}}}}, "authorization.a: 'spicedb' is not supported"),
        (
            {"authorization": {"a": {"opa": {"externalPolicy": {"url": "http://x"}}}}},
            "'externalPolicy' is not supported",
        ),
        (
            {"authorization": {"a": {"opa": {"rego": "x", "version": "v0"}}}},
            "'version' v0 is not supported",
        ),
        (
            {"response": {"success": {"headers": {"h": {"wristband": {}}}}}},
            "'wristband' is not supported",
        ),
        (
            {"callbacks": {"c": {"http": {"url": "http://x", "oauth2": {}}}}},
            "'oauth2' is not supported",
        ),
        ({"authentication": {"a": {"jwt": {"issuerUrl": "https://x"}}}}, "'audiences' is required"),
        (
            {"authentication": {"a": {"jwt": {"issuerUrl": "https://x", "audiences": ["a"]}}}},
            "'algorithms' is required",
        ),
        (
            {"authentication": {"a": {"jwt": {"jwksUrl": "https://x", "audiences": ["a"]}}}},
            "'issuer' is required",
        ),
        ({"authentication": {"a": {}}}, "give one of apiKey, jwt"),
        ({"authentication": {"a": {"anonymous": {}, "plain": {"selector": "x"}}}}, "give one of"),
        ({"authentication": {"a": {"apiKey": {"selector": {}}}}}, "an empty selector"),
        ({"authentication": {"a": {"anonymus": {}}}}, "did you mean 'anonymous'?"),
        ({"when": [{"patternRef": "p"}]}, "patternRef 'p' is not in 'patterns'"),
        ({"when": [{"any": [{"patternRef": "p"}]}]}, "patternRef 'p' is not in 'patterns'"),
        ({"when": [{"selector": "a"}]}, "'selector' and 'operator' belong together"),
        ({"when": [{"predicate": "true", "selector": "a", "operator": "eq"}]}, "give one of"),
        ({"when": [{}]}, "give one of"),
        ({"metadata": {"m": {"userInfo": {"identitySource": "j"}}}}, "'j' is no jwt rule"),
        ({"metadata": {"m": {"http": {"url": "http://x/{y}"}}}}, "takes no placeholders"),
        ({"metadata": {"m": {"http": {"url": "file:///etc/passwd"}}}}, "should match pattern"),
        ({"response": {"unauthorized": {"code": 200}}}, "greater than or equal to 300"),
        ({"authorization": {"a": {"kubernetesSubjectAccessReview": {}}}}, "give one of user"),
        ({"when": [{"all": []}]}, "when.0.all"),
        ({"when": [{"any": [{"any": []}]}]}, "when.0.any.0.any"),
        ({"patterns": {"p": []}}, "patterns.p: has no pattern"),
        (
            {
                "authorization": {
                    "a": {
                        "patternMatching": {"patterns": [{"predicate": "true"}]},
                        "cache": {"key": {"value": "x"}},
                    }
                }
            },
            "'cache' is of no use",
        ),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(spec: Any, said: str) -> None:
    assert said in problems(spec)
    assert said in problems({"spec": spec, "apiVersion": ODH["apiVersion"], "kind": "AuthConfig"})


@pytest.mark.parametrize(
    "algorithm", ["none", "HS256", "HS512", "RSA1_5", "rs256", "dir", "ES256K", ""]
)
def test_an_algorithm_without_a_public_key_can_not_be_named(algorithm: str) -> None:
    jwt = {"issuerUrl": "https://x", "audiences": ["a"], "algorithms": [algorithm]}
    assert "jwt.algorithms.0" in problems({"authentication": {"a": {"jwt": jwt}}})


@pytest.mark.parametrize(
    "manifest",
    [
        {**ODH, "kind": "AuthPolicy"},
        {**ODH, "apiVersion": "authorino.kuadrant.io/v1beta2"},
        {**ODH, "extra": 1},
        {**ODH, "spec": []},
        [],
        "text",
    ],
    ids=str,
)
def test_another_kind_of_manifest_is_refused(manifest: Any) -> None:
    assert problems(manifest)


def test_a_policy_is_given_once_or_keys_alone() -> None:
    for auth in ({}, {"policy": {}, "policy_file": "x"}):
        assert "give one of policy, policy_file, or keys alone" in problems(auth, Auth)
    assert Auth.model_validate({"keys": {"file": "keys.json"}}).policy is None
    ingress = Ingress.model_validate({"auth": {"policy": ODH, "public": ["docs"]}})
    assert ingress.auth is not None
    assert "did you mean 'policy'?" in problems({"auth": {"polcy": {}}}, Ingress)
    assert problems({"auth": {"policy": {}, "public": ["everything"]}}, Ingress)


ISSUED = {"issuerUrl": "https://x", "audiences": ["a"], "algorithms": ["RS256"]}


@pytest.mark.parametrize(
    "method",
    [
        "apiKey",
        "jwt",
        "kubernetesTokenReview",
        "oauth2Introspection",
        "x509",
        "plain",
        "anonymous",
    ],
)
def test_a_method_that_is_left_empty_is_none(method: str) -> None:
    said = problems({"authentication": {"a": {method: None}}})
    assert "give one of apiKey, jwt" in said
    assert "got none" in said


@pytest.mark.parametrize(
    "spec",
    [
        {"authorization": {"a": {"patternMatching": None}}},
        {"authorization": {"a": {"kubernetesSubjectAccessReview": None}}},
        {"metadata": {"m": {"http": None}}},
        {"metadata": {"m": {"userInfo": {"userInfoUrl": None}}}},
        {"metadata": {"m": {"http": {"url": None}}}},
        {"when": [{"predicate": None}]},
        {"when": [{"patternRef": None}]},
        {"when": [{"all": None}]},
        {"when": [{"selector": None, "operator": None}]},
        {"authentication": {"a": {"jwt": {**ISSUED, "issuerUrl": None}}}},
        {"authentication": {"a": {"plain": {"selector": None}}}},
        {"response": {"unauthorized": {"message": {"expression": None}}}},
    ],
    ids=str,
)
def test_an_alternative_that_is_left_empty_is_not_given(spec: Any) -> None:
    assert "got none" in problems(spec)


def test_a_value_may_be_null() -> None:
    policy = Policy.model_validate({"response": {"unauthorized": {"body": {"value": None}}}})
    assert policy.response.unauthorized.body is not None


def test_token_checks_that_are_left_empty_are_refused() -> None:
    assert "auth: is empty" in problems({"auth": None}, Ingress)
    assert Ingress.model_validate({}).auth is None
