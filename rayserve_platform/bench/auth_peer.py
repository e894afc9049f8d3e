"""Our ingress with one kind of token check over an engine that takes no time, without Ray.

`python -m rayserve_platform.bench.auth_peer --check KIND --port PORT` serves OpenAI's API. POST
/bench/token answers with a token that is let in; POST /bench/check/COUNT makes so many decisions
on a request with it, as the HTTP edge does before a protocol sees the request, and answers with the
CPU time of one. The keys of the issuer, and the cluster's verdicts, are kept: what is measured is a
check that asks nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.gate import Gate
from rayserve_platform.edge.auth.http import credentials_of, request_of
from rayserve_platform.edge.auth.opening import open_gate
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.keys.change import create
from rayserve_platform.edge.keys.file import KeysInFile
from rayserve_platform.edge.observe import Record
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress, Model
from rayserve_platform.settings.fake import FakeApp

HOST = "127.0.0.1"
MODEL = "fake"
USER = {
    "username": "system:serviceaccount:models:client",
    "uid": "0c8e2a9c-1d7b-4f5e-9a57-3d1f0f6f3c11",
    "groups": ["system:serviceaccounts", "system:serviceaccounts:models", "system:authenticated"],
}
KINDS: Mapping[str, Callable[[Path, Authorities], tuple[dict[str, Any], str]]]


class Authorities:
    """An OpenID Connect issuer and a Kubernetes API, in a thread of their own."""

    def __init__(self) -> None:
        parameters: Any = {"kid": "one", "use": "sig"}
        self._keys: dict[str, Any] = {
            "RS256": RSAKey.generate_key(2048, parameters),
            "ES256": ECKey.generate_key("P-256", parameters),
        }
        self._algorithm = ""
        self.url = ""
        is_up = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(is_up)), daemon=True).start()
        is_up.wait()

    async def _serve(self, is_up: threading.Event) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        self.url = f"http://{HOST}:{runner.addresses[0][1]}"
        is_up.set()
        await asyncio.Event().wait()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path.endswith("/openid-configuration"):
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        if request.path == "/keys":
            public = self._keys[self._algorithm].as_dict(private=False)
            return web.json_response({"keys": [public]})
        review = await request.json()
        audiences = review["spec"].get("audiences")
        status = {"authenticated": True, "user": USER, "audiences": audiences, "allowed": True}
        return web.json_response({**review, "status": status}, status=201)

    def token(self, algorithm: str) -> str:
        """Sign a token for an hour, and have the key published."""
        self._algorithm = algorithm
        now = int(time.time())
        claims = {"iss": self.url, "aud": "bench", "sub": "client", "iat": now, "exp": now + 3600}
        return jwt.encode(
            {"alg": algorithm, "kid": "one"}, claims, self._keys[algorithm], algorithms=[algorithm]
        )


def _key(folder: Path, _: Authorities) -> tuple[dict[str, Any], str]:
    file = folder / "keys.json"

    def verb(keys: Any, pepper: Callable[[], bytes]) -> tuple[Any, str]:
        changed, _, made = create(keys, pepper(), now=datetime.now(UTC), principal="client")
        return changed, made

    token = KeysInFile(file).update(verb)
    return {"keys": {"file": str(file)}}, token


def _signed(algorithm: str) -> Callable[[Path, Authorities], tuple[dict[str, Any], str]]:
    def make(_: Path, known: Authorities) -> tuple[dict[str, Any], str]:
        jwt = {"issuerUrl": known.url, "audiences": ["bench"], "algorithms": [algorithm]}
        return {"policy": {"authentication": {"oidc": {"jwt": jwt}}}}, known.token(algorithm)

    return make


def _review(_: Path, known: Authorities) -> tuple[dict[str, Any], str]:
    """Have the token reviewed; it looks like a service account's, which is a signed one."""
    review = {"kubernetesTokenReview": {"audiences": ["bench"]}}
    policy = {"authentication": {"kubernetes-user": review}}
    return {"policy": policy, "kubernetes": {"url": known.url}}, known.token("RS256")


def _access(folder: Path, known: Authorities) -> tuple[dict[str, Any], str]:
    """Have access reviewed as well: what configs/auth/README.md shows."""
    auth, token = _review(folder, known)
    review = {
        "user": {"selector": "auth.identity.user.username"},
        "resourceAttributes": {
            "group": {"value": "serving.kserve.io"},
            "resource": {"value": "inferenceservices"},
            "namespace": {"value": "models"},
            "name": {"expression": "model.name"},
            "verb": {"value": "get"},
        },
    }
    rbac = {"kubernetes-rbac": {"kubernetesSubjectAccessReview": review}}
    return {**auth, "policy": {**auth["policy"], "authorization": rbac}}, token


KINDS = {
    "key": _key,
    "review": _review,
    "access": _access,
    "rs256": _signed("RS256"),
    "es256": _signed("ES256"),
}


class Measured:
    """The ingress as an ASGI application, and the bench's own questions to it."""

    def __init__(self, edge: HttpEdge, gate: Gate | None, token: str) -> None:
        self._edge = edge
        self.gate = gate
        self._token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" and self.gate is not None:
            await self.gate.guard.start()
        if not scope.get("path", "").startswith("/bench/"):
            await self._edge(scope, receive, send)
            return
        _, _, what, *count = scope["path"].split("/")
        answer = (
            {"token": self._token} if what == "token" else {"cpu_s": await self._cpu_s(int(*count))}
        )
        body = json.dumps(answer).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _cpu_s(self, count: int) -> float:
        assert self.gate is not None
        decide = _decision(self.gate, self._token)
        await decide()
        began_s = time.thread_time()
        for _ in range(count):
            await decide()
        return (time.thread_time() - began_s) / count


def _decision(gate: Gate, token: str) -> Callable[[], Awaitable[None]]:
    """Return what the HTTP edge does about a request's token, and the catalog about its model."""
    sent = {
        "host": "models.example.org",
        "user-agent": "OpenAI/Python 2.8.1",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "content-length": "120",
        "x-request-id": "8e4c9f6b-4b8c-4d8b-8a57-0e0c0d8b7f11",
        "authorization": f"Bearer {token}",
    }
    path = "/v1/completions"
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "client": (HOST, 40000),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }
    target = Target(model=MODEL)

    async def decide() -> None:
        request = request_of(scope, path=path, id="r-1", protocol="openai")
        session = await gate.enter(credentials_of(scope), request)
        await session.require(target)
        session.finish(Record(protocol="openai", request_id="r-1"))

    return decide


def application(kind: str, folder: Path) -> Measured:
    """Return the ingress with a check of this kind; `none` checks nothing."""
    auth, token = ({}, "") if kind == "none" else KINDS[kind](folder, Authorities())
    checks = {"auth": auth} if auth else {}
    settings = Ingress.model_validate({"access_log": False, **checks})
    runtime = FakeRuntime(FakeApp(model=Model(id=MODEL)))
    catalog = Catalog([runtime], guarded=settings.auth is not None)
    gate = None if settings.auth is None else open_gate(settings.auth, catalog.targets)
    faces = http_protocols(settings, catalog, engine_elsewhere=False)
    return Measured(HttpEdge(faces, settings, gate=gate), gate, token)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", required=True, choices=["none", *KINDS])
    parser.add_argument("--port", required=True, type=int, help="HTTP port on the loopback")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app = application(arguments.check, Path(folder))
        uvicorn.run(app, host=HOST, port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
