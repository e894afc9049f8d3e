"""The rules of an AuthConfig's third phase: who, of those who are known, may do what.

Source of all names: Authorino's AuthConfig, `authorino.kuadrant.io/v1beta3`.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.auth.rules import Rule, Timeout
from rayserve_platform.settings.auth.values import Pattern, Value, Vocabulary


class PatternMatching(Vocabulary):
    """All of the patterns must hold."""

    patterns: tuple[Pattern, ...] = Field(min_length=1)


class ResourceAttributes(Vocabulary):
    """What the Kubernetes API is asked about."""

    namespace: Value | None = None
    group: Value | None = None
    resource: Value | None = None
    name: Value | None = None
    subresource: Value | None = None
    verb: Value | None = None


class AccessReview(Vocabulary):
    """Asks the Kubernetes API whether the user may do something (RBAC).

    Without `resourceAttributes` it is about the request's path and method, as in Authorino.
    """

    user: Value | None = None
    groups: tuple[str, ...] | None = Field(default=None, min_length=1)
    authorizationGroups: Value | None = None  # noqa: N815  # Authorino's names
    resourceAttributes: ResourceAttributes | None = None  # noqa: N815
    timeout: int | None = Timeout

    @model_validator(mode="after")
    def _somebody(self) -> "AccessReview":
        if self.user is None and self.groups is None and self.authorizationGroups is None:
            raise ValueError("give one of user, groups, authorizationGroups")
        return self


class Opa(Vocabulary):
    """A policy in Rego. Needs the extra `rego`."""

    refused: ClassVar[dict[str, str]] = {
        "externalPolicy": "a policy that changes elsewhere is not followed; use 'rego'"
    }
    rego: str = Field(min_length=1, max_length=2**16)
    """Rules, without a `package`; `allow` must be true. `input` is the authorization JSON."""
    version: Literal["v0", "v1"] = "v1"
    """Of the language."""
    allValues: bool = False  # noqa: N815  # Authorino's name
    """Conditions and values that come later see all rules of the policy, else only `allow`."""

    @model_validator(mode="after")
    def _of_now(self) -> "Opa":
        if self.version == "v0":
            raise ValueError("'version' v0 is not supported: its sets would be objects; write v1")
        return self


class Authorization(Rule):
    """A condition on the request; all must hold, once for every model that is meant."""

    refused: ClassVar[dict[str, str]] = {
        "spicedb": "ask it with a 'metadata' rule of kind 'http'",
    }
    patternMatching: PatternMatching | None = None  # noqa: N815  # Authorino's names
    kubernetesSubjectAccessReview: AccessReview | None = None  # noqa: N815
    opa: Opa | None = None

    @model_validator(mode="after")
    def _one(self) -> "Authorization":
        self.one_of("patternMatching", "kubernetesSubjectAccessReview", "opa")
        if self.patternMatching is not None and self.cache is not None:
            raise ValueError("'cache' is of no use: 'patternMatching' asks nobody")
        return self
