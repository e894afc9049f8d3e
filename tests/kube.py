"""A Kubernetes API server for the tests of token checks: reviews, RBAC and Secrets.

Its answers have the shapes that a real one was recorded with (`tests/data/kubernetes`).
"""

import asyncio
import base64
import contextlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from tests.authorities import Authority


class KubeApi(Authority):
    """TokenReview, SubjectAccessReview by RBAC, and Secrets with list and watch."""

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, tuple[dict[str, Any], list[str]]] = {}
        self.grants: list[tuple[str, dict[str, str]]] = []
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}
        self.reviews: list[dict[str, Any]] = []
        self.knows_audiences = True
        self._version = 100
        self._log: list[tuple[int, str, dict[str, Any]]] = []
        self._nonsense: list[Any] = []
        self._changed = asyncio.Condition()

    def account(self, token: str, name: str, *, audiences: list[str] | None = None) -> None:
        """Make a token known as a service account's, `namespace:name`."""
        namespace = name.split(":", maxsplit=1)[0]
        user = {
            "username": f"system:serviceaccount:{name}",
            "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{namespace}",
                "system:authenticated",
            ],
        }
        self.users[token] = (user, audiences or ["rayserve"])

    def grant(self, subject: str, **attributes: str) -> None:
        """Let a user or group do what has these resource attributes (a name of `*`: any)."""
        self.grants.append((subject, attributes))

    async def put(
        self,
        name: str,
        data: Mapping[str, bytes],
        *,
        labels: Mapping[str, str] | None = None,
        namespace: str = "models",
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Create a Secret, or change it."""
        known = self.secrets.get((namespace, name))
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": known["metadata"]["uid"] if known else str(uuid.uuid4()),
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": metadata,
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
        await self._event("MODIFIED" if known else "ADDED", secret)
        self.secrets[(namespace, name)] = secret

    async def delete(self, name: str, *, namespace: str = "models") -> None:
        """Delete a Secret."""
        await self._event("DELETED", self.secrets.pop((namespace, name)))

    async def expire_watches(self) -> None:
        """Answer every watch that it is too old (410), as after a compaction."""
        await self._event("ERROR", {"kind": "Status", "code": 410, "metadata": {}})

    async def tell(self, line: Any) -> None:
        """Write a line to every watch that runs, whatever it is."""
        async with self._changed:
            self._nonsense.append(line)
            self._changed.notify_all()

    async def _event(self, kind: str, secret: dict[str, Any]) -> None:
        self._version += 1
        secret["metadata"]["resourceVersion"] = str(self._version)
        async with self._changed:
            self._log.append((self._version, kind, json.loads(json.dumps(secret))))
            self._changed.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/apis/authentication.k8s.io/v1/tokenreviews":
            return self._review("TokenReview", await request.json(), self._token_status)
        if request.path == "/apis/authorization.k8s.io/v1/subjectaccessreviews":
            return self._review("SubjectAccessReview", await request.json(), self._access_status)
        found = re.fullmatch(r"/api/v1(?:/namespaces/([^/]+))?/secrets(?:/([^/]+))?", request.path)
        if found is None:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        namespace, name = found.groups()
        if request.method in ("POST", "PUT"):
            return await self._write(namespace, name, await request.json())
        if name:
            secret = self.secrets.get((namespace, name))
            status = 200 if secret else 404
            return web.json_response(secret or {"kind": "Status", "code": 404}, status=status)
        if request.query.get("watch") == "true":
            return await self._watch(request, namespace)
        items = [one for one in self.secrets.values() if self._selected(one, namespace, request)]
        listed = {
            "kind": "SecretList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(self._version)},
            "items": items,
        }
        return web.json_response(listed)

    async def _write(self, namespace: str, name: str | None, sent: Any) -> web.Response:
        """Create (POST) or change (PUT) a Secret, unless it is there or was changed meanwhile."""
        name = name or sent["metadata"]["name"]
        known = self.secrets.get((namespace, name))
        read = sent["metadata"].get("resourceVersion")
        if (known["metadata"]["resourceVersion"] if known else None) != read:
            reason = "Conflict" if read else "AlreadyExists"
            body = {"kind": "Status", "status": "Failure", "reason": reason, "code": 409}
            return web.json_response({**body, "message": f"secrets: {reason}"}, status=409)
        data = {key: base64.b64decode(value) for key, value in sent["data"].items()}
        await self.put(name, data, namespace=namespace)
        status = 200 if known else 201
        return web.json_response(self.secrets[(namespace, name)], status=status)

    def _review(self, kind: str, body: Any, status: Callable[[Any], Any]) -> web.Response:
        assert body["kind"] == kind
        self.reviews.append(body["spec"])
        return web.json_response(
            {**body, "metadata": {}, "status": status(body["spec"])}, status=201
        )

    def _token_status(self, spec: Any) -> dict[str, Any]:
        known = self.users.get(spec["token"])
        if known is None:
            return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        user, audiences = known
        if not self.knows_audiences:
            return {"authenticated": True, "user": user}
        found = [audience for audience in spec["audiences"] if audience in audiences]
        if not found:
            error = f"[invalid bearer token, token audiences {audiences} is invalid]"
            return {"user": {}, "error": error}
        return {"authenticated": True, "user": user, "audiences": found}

    def _access_status(self, spec: Any) -> dict[str, Any]:
        asked = spec.get("resourceAttributes") or spec.get("nonResourceAttributes")
        subjects = {spec.get("user"), *spec.get("groups", ())}
        for subject, attributes in self.grants:
            if subject in subjects and all(
                value in ("*", asked.get(name)) for name, value in attributes.items()
            ):
                return {"allowed": True, "reason": f'RBAC: allowed to "{subject}"'}
        return {"allowed": False}

    async def _watch(self, request: web.Request, namespace: str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        since = int(request.query["resourceVersion"])
        with contextlib.suppress(ConnectionResetError):
            while True:
                for version, kind, secret in [one for one in self._log if one[0] > since]:
                    since = version
                    if kind == "ERROR" or self._selected(secret, namespace, request):
                        line = {"type": kind, "object": secret}
                        await response.write(json.dumps(line).encode() + b"\n")
                    if kind == "ERROR":
                        return response
                async with self._changed:
                    while self._version <= since and not self._nonsense:
                        await self._changed.wait()
                while self._nonsense:
                    await response.write(json.dumps(self._nonsense.pop()).encode() + b"\n")
        return response

    def _selected(self, secret: Any, namespace: str | None, request: web.Request) -> bool:
        labels = secret["metadata"].get("labels", {})
        terms = request.query.get("labelSelector", "").split(",")
        wanted = [term.split("=") for term in terms if "=" in term]
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        is_here = namespace in (None, secret["metadata"].get("namespace"))
        is_named = name in ("", secret["metadata"]["name"])
        return is_here and is_named and all(labels.get(key) == value for key, value in wanted)
