"""The small parts of an AuthConfig: values, patterns, credentials, caches.

Source of all names: Authorino's AuthConfig, `authorino.kuadrant.io/v1beta3`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.model import Settings


class Vocabulary(Settings):
    """Base of the AuthConfig's parts: knows what Authorino has and this platform does not."""

    refused: ClassVar[dict[str, str]] = {}
    """Fields of Authorino's that are not supported, with the reason."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_by_name(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key in cls.refused:
                    raise ValueError(f"'{key}' is not supported: {cls.refused[key]}")
        return data

    def one_of(self, *names: str, least: int = 1) -> None:
        """Refuse more than one of these fields, and (`least` 1) none.

        A field that YAML leaves empty is not given: it says nothing that could be checked.

        Raises:
            ValueError: naming them.
        """
        given = [name for name in names if self.gives(name)]
        if len(given) > 1 or len(given) < least:
            what = "give one of" if least else "give at most one of"
            raise ValueError(f"{what} {', '.join(names)}; got {', '.join(given) or 'none'}")

    def gives(self, name: str) -> bool:
        """Say whether a field has something in it."""
        return getattr(self, name) is not None


class Value(Vocabulary):
    """A value that is given, selected from the authorization JSON, or computed."""

    value: Any = None
    """As it is."""
    selector: str | None = None
    """A path into the authorization JSON, in GJSON's notation; deprecated in Authorino as well."""
    expression: str | None = None
    """In CEL, over `request`, `source`, `destination`, `auth`, `metadata` and `model`."""

    @model_validator(mode="after")
    def _one(self) -> "Value":
        self.one_of("value", "selector", "expression")
        return self

    def gives(self, name: str) -> bool:
        """Say whether a field has something in it; null is a value as others are."""
        return super().gives(name) or (name == "value" and name in self.model_fields_set)


class Pattern(Vocabulary):
    """A condition: a comparison, a CEL predicate, a named list of patterns, or several of these."""

    selector: str | None = None
    operator: Literal["eq", "neq", "incl", "excl", "matches"] | None = None
    value: str = ""
    predicate: str | None = None
    """A CEL expression that must be true; anything else, an error included, denies."""
    patternRef: str | None = None  # noqa: N815  # Authorino's name
    all: tuple["Pattern", ...] | None = Field(default=None, min_length=1)
    any: tuple["Pattern", ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one(self) -> "Pattern":
        self.one_of("selector", "predicate", "patternRef", "all", "any")
        if (self.selector is None) != (self.operator is None):
            raise ValueError("'selector' and 'operator' belong together")
        if self.operator is None and "value" in self.model_fields_set:
            raise ValueError("'value' belongs to a 'selector' and an 'operator'")
        return self


class Comparison(Vocabulary):
    """A pattern of a named list; Authorino has no other kinds there."""

    selector: str
    operator: Literal["eq", "neq", "incl", "excl", "matches"]
    value: str = ""


class Prefixed(Vocabulary):
    """The Authorization header."""

    prefix: str = Field(default="Bearer", max_length=64, pattern=r"^[A-Za-z0-9_\-]*$")
    """The word before the token, in any case; `""`: the whole header is the token."""


class Named(Vocabulary):
    """A header, query parameter or cookie."""

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_\-.]+$")


class CredentialsSource(Vocabulary):
    """Where in a request the credentials are; the Authorization header if nothing is said."""

    authorizationHeader: Prefixed | None = None  # noqa: N815  # Authorino's names
    customHeader: Named | None = None  # noqa: N815
    queryString: Named | None = None  # noqa: N815
    cookie: Named | None = None

    @model_validator(mode="after")
    def _one(self) -> "CredentialsSource":
        self.one_of("authorizationHeader", "customHeader", "queryString", "cookie", least=0)
        return self


class Cache(Vocabulary):
    """Keeps what a rule found, under a key that the request gives."""

    key: Value
    ttl: int = Field(default=60, ge=0, le=3600)
    """Seconds. A revocation takes effect within this time."""


class LabelRequirement(Vocabulary):
    """One line of `matchExpressions`."""

    key: str = Field(min_length=1)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_values(self) -> "LabelRequirement":
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError(f"'{self.operator}' with {len(self.values)} values")
        return self


class LabelSelector(Vocabulary):
    """Which Secrets, by their labels."""

    matchLabels: dict[str, str] = Field(default_factory=dict)  # noqa: N815  # Kubernetes' names
    matchExpressions: tuple[LabelRequirement, ...] = ()  # noqa: N815

    @model_validator(mode="after")
    def _not_all(self) -> "LabelSelector":
        if not self.matchLabels and not self.matchExpressions:
            raise ValueError("an empty selector would take every Secret; name a label")
        return self


class LocalRef(Vocabulary):
    """A Secret of the policy's own namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")


class SecretKeyRef(LocalRef):
    """One entry of a Secret."""

    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
