"""An AuthConfig, as it stands in a Kubernetes manifest or in the `args` of a Serve config."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from rayserve_platform.settings.auth.authorization import Authorization
from rayserve_platform.settings.auth.response import Callback, Response
from rayserve_platform.settings.auth.rules import (
    Authentication,
    Metadata,
    Rule,
)
from rayserve_platform.settings.auth.values import Comparison, Pattern, Vocabulary

API = "authorino.kuadrant.io/v1beta3"
MANIFEST = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


class Policy(Vocabulary):
    """Who may call what: the `spec` of an AuthConfig; a whole manifest is taken as well."""

    namespace: str = ""
    """Where Secrets are looked for: the manifest's own namespace; empty: the replica's."""
    hosts: tuple[str, ...] = ()
    """Not looked at: the policy holds for every request to the application, whatever its host."""
    patterns: dict[str, tuple[Comparison, ...]] = Field(default_factory=dict)
    """Named lists of patterns for `patternRef`."""
    when: tuple[Pattern, ...] = ()
    """The policy applies where all of these hold; elsewhere nobody is asked for a token."""
    authentication: dict[str, Authentication] = Field(default_factory=dict)
    """Without any rule everybody is anonymous, as in Authorino."""
    metadata: dict[str, Metadata] = Field(default_factory=dict)
    authorization: dict[str, Authorization] = Field(default_factory=dict)
    response: Response = Response()
    callbacks: dict[str, Callback] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _unpack(cls, data: Any) -> Any:
        """Take the `spec` out of a manifest."""
        if not isinstance(data, Mapping) or "spec" not in data:
            return data
        unknown = set(data) - MANIFEST
        if unknown:
            raise ValueError(f"not part of a manifest: {', '.join(sorted(map(str, unknown)))}")
        if data.get("apiVersion", API) != API or data.get("kind", "AuthConfig") != "AuthConfig":
            raise ValueError(
                f"is {data.get('kind')} of {data.get('apiVersion')}; expected AuthConfig of {API}"
            )
        spec = data["spec"]
        if not isinstance(spec, Mapping):
            raise ValueError("'spec' must be an object")  # noqa: TRY004  # pydantic reports these
        namespace = (data.get("metadata") or {}).get("namespace")
        return {**spec, "namespace": namespace} if namespace else spec

    @model_validator(mode="after")
    def _refers(self) -> "Policy":
        for name, listed in self.patterns.items():
            if not listed:
                raise ValueError(f"patterns.{name}: has no pattern, and would hold for everybody")
        for where, pattern in self._patterns():
            if pattern.patternRef is not None and pattern.patternRef not in self.patterns:
                raise ValueError(f"{where}: patternRef '{pattern.patternRef}' is not in 'patterns'")
        for name, rule in self.metadata.items():
            source = rule.userInfo.identitySource if rule.userInfo else None
            if source is not None:
                jwt = self.authentication[source].jwt if source in self.authentication else None
                if jwt is None or jwt.issuerUrl is None:
                    raise ValueError(
                        f"metadata.{name}: identitySource '{source}' is no jwt rule with issuerUrl"
                    )
        return self

    def rules(self) -> list[tuple[str, Rule]]:
        """Return all rules with their places."""
        phases: dict[str, Mapping[str, Rule]] = {
            "authentication": self.authentication,
            "metadata": self.metadata,
            "authorization": self.authorization,
            "response.success.headers": self.response.success.headers,
            "response.success.dynamicMetadata": self.response.success.dynamicMetadata,
            "callbacks": self.callbacks,
        }
        return [
            (f"{phase}.{name}", rule) for phase, r in phases.items() for name, rule in r.items()
        ]

    def _patterns(self) -> list[tuple[str, Pattern]]:
        found = [("when", pattern) for pattern in self.when]
        for where, rule in self.rules():
            found += [(where, pattern) for pattern in rule.when]
        for name, rule in self.authorization.items():
            if rule.patternMatching is not None:
                listed = rule.patternMatching.patterns
                found += [(f"authorization.{name}", pattern) for pattern in listed]
        return [(where, leaf) for where, pattern in found for leaf in _leaves(pattern)]


def _leaves(pattern: Pattern) -> list[Pattern]:
    inner = pattern.all or pattern.any
    return [pattern] if inner is None else [leaf for one in inner for leaf in _leaves(one)]
