"""Asks the Kubernetes API whether a user may do something.

Source: Kubernetes API, authorization.k8s.io/v1 SubjectAccessReview.
"""

from collections.abc import Mapping
from typing import Any

from rayserve_platform.edge.auth.conditions import Computed
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault
from rayserve_platform.edge.auth.kubernetes import REVIEW_ACCESS, KubernetesApi
from rayserve_platform.edge.auth.rule import CacheKey
from rayserve_platform.edge.auth.selector import written
from rayserve_platform.edge.auth.verdict import Good, Rejected, Unavailable, Verdicts
from rayserve_platform.settings.auth.authorization import AccessReview


class AccessCheck:
    """Verdicts are kept by what was asked.

    Where the user is the one that a TokenReview named, the API gets uid, groups and extra of that
    user as well, so that bindings to groups count; Authorino passes the name alone.

    Loading and unloading a resource is `update`, whatever verb the policy has for calling it.
    """

    waits = True
    remembers = True

    def __init__(self, rule: AccessReview, api: KubernetesApi, key: CacheKey, where: str) -> None:
        self._api = api
        self._key = key
        self._verdicts: Verdicts[bool] = Verdicts(key.ttl_s)
        self._timeout_ms = rule.timeout
        self._groups = None if rule.groups is None else list(rule.groups)
        self._user = Computed(rule.user, f"{where}.user") if rule.user else None
        listed = rule.authorizationGroups
        self._listed = Computed(listed, f"{where}.authorizationGroups") if listed else None
        attributes = rule.resourceAttributes
        self._attributes: dict[str, Computed] | None = None
        if attributes is not None:
            given = {name: getattr(attributes, name) for name in attributes.model_fields_set}
            self._attributes = {
                name: Computed(value, f"{where}.resourceAttributes.{name}")
                for name, value in given.items()
                if value is not None
            }

    @property
    def grants_loading(self) -> bool:
        """Where it is about a resource: then it asks for a verb of its own."""
        return self._attributes is not None

    async def check(self, document: Document) -> Any:
        """Ask, or remember what was answered."""
        spec = self._spec(document)
        about = f"{self._key.of(document)}\0{written(spec)}"
        await self._verdicts.get(about, lambda: self._ask(spec))
        return True

    def _spec(self, document: Document) -> dict[str, Any]:
        spec: dict[str, Any] = self._subject(document)
        if self._attributes is None:
            path, verb = document.request.path, document.request.method.lower()
            return {**spec, "nonResourceAttributes": {"path": path, "verb": verb}}
        values = {name: written(one.of(document)) for name, one in self._attributes.items()}
        if document.target is not None and document.target.operation == "load":
            values["verb"] = "update"
        return {**spec, "resourceAttributes": values}

    def _subject(self, document: Document) -> dict[str, Any]:
        subject: dict[str, Any] = {}
        if self._user is not None:
            name = self._user.of(document)
            if not isinstance(name, str) or not name:
                raise EvaluationFault("the SubjectAccessReview's user is empty")
            subject["user"] = name
            known = document.user
            if known is not None and known.get("username") == name:
                kept = ("uid", "groups", "extra")
                subject |= {key: known[key] for key in kept if known.get(key)}
        if self._groups is not None:
            subject["groups"] = self._groups
        if self._listed is not None:
            subject["groups"] = _texts(self._listed.of(document))
        return subject

    async def _ask(self, spec: Mapping[str, Any]) -> Good[bool]:
        status = await self._api.review(
            REVIEW_ACCESS, "SubjectAccessReview", spec, self._timeout_ms
        )
        is_allowed, is_denied = status.get("allowed"), status.get("denied", False)
        if not isinstance(is_allowed, bool) or not isinstance(is_denied, bool):
            raise Unavailable("the SubjectAccessReview's 'allowed' is neither true nor false")
        if not is_allowed or is_denied:
            raise Rejected(f"the Kubernetes API refused: {status.get('reason', '')}")
        return Good(value=True)

    async def stop(self) -> None:
        """End what is being asked."""
        await self._verdicts.stop()


def _texts(found: Any) -> list[str]:
    if isinstance(found, list | tuple):
        return [written(item) for item in found]
    if found in (None, ""):
        return []
    raise EvaluationFault("authorizationGroups is no list")
