"""Authorities for the tests of token checks, each on a real socket: an OpenID Connect issuer whose
keys rotate, and services that fail as told. The Kubernetes API is in `tests.kube`.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bearer(token: str) -> dict[str, str]:
    """Return the header that brings a token."""
    return {"authorization": f"Bearer {token}"}


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


@contextlib.contextmanager
def beside(*authorities: Authority) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Run authorities in a thread of their own: for a platform that outlives a test's loop.

    Yields what runs a coroutine of theirs there, and returns its result.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    try:
        for authority in authorities:
            call(authority.start())
        yield call
    finally:
        for authority in authorities:
            call(authority.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


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
