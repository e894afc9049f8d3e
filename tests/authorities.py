"""Authorities for the tests of token checks, each on a real socket: an OpenID Connect issuer whose
keys rotate, a Kubernetes API server with its reviews and Secrets, and services that fail as told.

The Kubernetes API's answers have the shapes that a real one was recorded with
(`tests/data/kubernetes`); RBAC is evaluated.
"""

import asyncio
import base64
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Authority:
    """A server that can be told to fail.

    Args:
        fault: None, `hang`, `reset`, a status, or a body to answer with in place of its own.
    """

    def __init__(self) -> None:
        self.fault: str | int | bytes | None = None
        self.delay_s = 0.0
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        await asyncio.sleep(self.delay_s)
        match self.fault:
            case None:
                return await self.answer(request)
            case "hang":
                await asyncio.Event().wait()
            case "reset":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case int():
                return web.json_response({"message": "told to fail"}, status=self.fault)
            case bytes():
                return web.Response(body=self.fault, content_type="application/json")
        raise AssertionError(self.fault)

    async def start(self) -> None:
        """Listen; after `stop`, on the same port again."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Be down: connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@contextlib.asynccontextmanager
async def running(authority: Any) -> AsyncIterator[Any]:
    """Run an authority."""
    await authority.start()
    try:
        yield authority
    finally:
        await authority.stop()


class Issuer(Authority):
    """An OpenID Connect issuer, with introspection (RFC 7662) and user info.

    Args:
        kind: of its first key, `RSA` or `EC`, which is made faster.
    """

    def __init__(self, kind: str = "RSA") -> None:
        super().__init__()
        self.keys: dict[str, Any] = {}
        self.signs_with = ""
        self.opaque: dict[str, dict[str, Any]] = {}
        self.document: dict[str, Any] = {}
        self.more_keys: list[Any] = []
        self.introspected_by: list[str] = []
        self.rotate("first", kind=kind)

    def rotate(self, kid: str, *, kind: str = "RSA", keep_old: bool = False) -> None:
        """Sign with a new key from now on."""
        if not keep_old:
            self.keys = {}
        parameters: Any = {"kid": kid, "use": "sig"}
        made = (
            RSAKey.generate_key(2048, parameters)
            if kind == "RSA"
            else ECKey.generate_key("P-256", parameters)
        )
        self.keys[kid] = made
        self.signs_with = kid

    def token(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Issue a token for `rayserve` that is valid for ten minutes; None leaves a claim out."""
        key = self.keys[self.signs_with]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        now = int(time.time())
        given = {
            "iss": self.url,
            "aud": "rayserve",
            "sub": "alice",
            "exp": now + 600,
            "iat": now,
            **claims,
        }
        content = {name: value for name, value in given.items() if value is not None}
        head = {"alg": algorithm, "kid": self.signs_with, **(header or {})}
        return jwt.encode(head, content, key, algorithms=[str(head["alg"])])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/.well-known/openid-configuration":
            found = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "userinfo_endpoint": f"{self.url}/userinfo",
                **self.document,
            }
            return web.json_response(found)
        if request.path == "/keys":
            public = [key.as_dict(private=False) for key in self.keys.values()]
            return web.json_response({"keys": [*self.more_keys, *public]})
        if request.path == "/introspect":
            self.introspected_by.append(request.headers.get("authorization", ""))
            form = await request.post()
            token = str(form.get("token"))
            return web.json_response(self.opaque.get(token, {"active": False}))
        if request.path == "/userinfo":
            return web.json_response({"sub": "alice", "email": "alice@example.org"})
        return web.json_response({}, status=404)


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
                    while self._version <= since:
                        await self._changed.wait()
        return response

    def _selected(self, secret: Any, namespace: str | None, request: web.Request) -> bool:
        labels = secret["metadata"].get("labels", {})
        terms = request.query.get("labelSelector", "").split(",")
        wanted = [term.split("=") for term in terms if "=" in term]
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        is_here = namespace in (None, secret["metadata"].get("namespace"))
        is_named = name in ("", secret["metadata"]["name"])
        return is_here and is_named and all(labels.get(key) == value for key, value in wanted)


class Service(Authority):
    """Any HTTP service of an operator's: answers JSON, and remembers what it was sent."""

    def __init__(self, content: Any = None) -> None:
        super().__init__()
        self.content = content
        self.received: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(
            {"method": request.method, "path": request.path_qs, "headers": headers, "body": body}
        )
        return web.json_response(self.content)
