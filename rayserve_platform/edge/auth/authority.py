"""Asking authorities over HTTP: bounded in time and size, and not while one is known to be down."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import aiohttp
import orjson

from rayserve_platform.edge.auth.verdict import Unavailable

MAX_ANSWER_BYTES = 2**20
MAX_CALLS = 64
"""At a time to one authority about one thing; more wait, within the time their decision has."""
MAX_CALLS_OF_ONE = MAX_CALLS // 2
"""Of these for the callers of one address, so that its junk tokens keep nobody else's out."""
FAILURES = 5
"""In a row, after which an authority is left alone."""
PAUSE_S = 1.0
"""For so long. Then one call tries; so an authority is used again within a second or two."""


class Answered(Unavailable):
    """An answer about this question, though not the one that was hoped for: no outage."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(f"{what} answered {status}")
        self.status = status


class Breaker:
    """Remembers that an authority is down, so that nobody waits to find out."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_again_at = 0.0
        self._calls = asyncio.Semaphore(MAX_CALLS)
        # Without entries for addresses that have no call: a semaphore lives as long as its users.
        self._of_one: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def place(self, source: str) -> AsyncIterator[bool]:
        """Wait for a place, and hold it; says whether there was one at once."""
        async with contextlib.AsyncExitStack() as held:
            was_free = not self._calls.locked()
            if source:
                own = self._of_one.get(source) or asyncio.Semaphore(MAX_CALLS_OF_ONE)
                self._of_one[source] = own
                was_free = was_free and not own.locked()
                await held.enter_async_context(own)
            await held.enter_async_context(self._calls)
            yield was_free

    def check(self, name: str) -> None:
        """Refuse while the authority is left alone.

        Raises:
            Unavailable: then.
        """
        if self._failures < FAILURES:
            return
        now = time.monotonic()
        if now < self._closed_again_at:
            raise Unavailable(f"{name} does not answer; left alone for a moment")
        # This call tries; the others wait for what it finds.
        self._closed_again_at = now + PAUSE_S

    def succeeded(self) -> None:
        """Note an answer."""
        self._failures = 0

    def failed(self) -> None:
        """Note that there was none."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._closed_again_at = time.monotonic() + PAUSE_S


class Authorities:
    """The HTTP client of a guard.

    Args:
        timeout_s: of one call, where a rule says nothing else.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._breakers: dict[tuple[str, str], Breaker] = {}

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connections; made at the first use, since they belong to a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        timeout_ms: int | None = None,
        tls: ssl.SSLContext | None = None,
        expected: tuple[int, ...] = (200,),
        is_read: bool = True,
        about: str = "",
        source: str = "",
    ) -> Any:
        """Return the JSON of an answer; None where nobody reads it (`is_read` false).

        `about` is what an authority is asked about: each thing is left alone by itself. `source`
        is the address and port of the caller whose token is in question, if one is.

        Raises:
            Unavailable: when there is none in time, its status is none of `expected`, it is too
                large or no JSON.
        """
        origin = _shown(url, with_path=False)
        breaker = self._breakers.setdefault((origin, about), Breaker())
        breaker.check(origin)
        limit_s = min(self._timeout_s, timeout_ms / 1000) if timeout_ms else self._timeout_s
        host = source.rpartition(":")[0] or source
        was_free = False
        try:
            async with asyncio.timeout(limit_s), breaker.place(host) as was_free:
                content = await self._call(
                    method, url, expected, tls=tls, headers=headers, data=data
                )
        except TimeoutError:
            if was_free:  # else it had to wait for others, which is not the authority's fault
                breaker.failed()
            raise Unavailable(f"{origin} did not answer within {limit_s:g} s") from None
        except aiohttp.InvalidURL:
            raise Unavailable(f"{origin}: not a URL that can be called") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            breaker.failed()
            raise Unavailable(f"{origin}: {type(error).__name__}: {error}") from None
        except Answered:
            breaker.succeeded()
            raise
        except Unavailable:
            breaker.failed()
            raise
        if is_read:
            try:
                content = orjson.loads(content)
            except orjson.JSONDecodeError:
                breaker.failed()
                raise Unavailable(f"{origin} did not answer with JSON") from None
        breaker.succeeded()
        return content

    async def _call(
        self,
        method: str,
        url: str,
        expected: tuple[int, ...],
        *,
        tls: ssl.SSLContext | None,
        **options: Any,
    ) -> bytes:
        if tls is not None:
            options["ssl"] = tls
        async with self.session.request(method, url, allow_redirects=False, **options) as response:
            if response.status not in expected:
                if 400 <= response.status < 500 and response.status != 429:
                    raise Answered(_shown(url), response.status)
                raise Unavailable(f"{_shown(url)} answered {response.status}")
            body = await response.content.read(MAX_ANSWER_BYTES + 1)
            while len(body) <= MAX_ANSWER_BYTES and not response.content.at_eof():
                body += await response.content.read(MAX_ANSWER_BYTES + 1 - len(body))
            if len(body) > MAX_ANSWER_BYTES:
                raise Unavailable(f"{_shown(url)} answered with more than {MAX_ANSWER_BYTES} bytes")
        return body

    async def stop(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _shown(url: str, *, with_path: bool = True) -> str:
    """Return what a log may say of a URL: neither its query nor its user, which may be secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path if with_path else ''}"
