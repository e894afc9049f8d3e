"""The public keys of an OpenID Connect issuer: found, kept, and fetched again when they rotate.

An outage never drops keys that are known. Source: OpenID Connect Discovery 1.0, sections 3 and 4;
RFC 7517, section 5.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from joserfc import jwk
from joserfc.errors import JoseError
from joserfc.jwk import Key

from rayserve_platform.edge.auth.authority import Authorities
from rayserve_platform.edge.auth.verdict import Rejected, Unavailable
from rayserve_platform.settings.auth.rules import Jwt

log = logging.getLogger("rayserve.auth")

UNKNOWN_KID_S = 30.0
"""A key that is not known makes the keys be fetched again at most this often."""
RETRY_S = 1.0
"""After a fetch that failed."""
MOST_KEYS = 100
DEFAULT_TTL_S = 300.0


class Jwks:
    """Keys by their ids.

    Args:
        rule: whose; with `issuerUrl` the discovery document says where the keys are.
    """

    def __init__(self, rule: Jwt, authorities: Authorities) -> None:
        self._rule = rule
        self._authorities = authorities
        self._ttl_s = rule.ttl or DEFAULT_TTL_S
        self._issuer = rule.issuer
        self._keys: dict[str | None, Key] | None = None
        self._fetched_at = 0.0
        self._missed_at = -UNKNOWN_KID_S
        self._fetching: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self.user_info_url: str | None = None

    @property
    def issuer(self) -> str:
        """What `iss` must be; known once the keys are."""
        assert self._issuer is not None
        return self._issuer

    async def key(self, kid: str | None) -> Key:
        """Return the key that signed a token.

        Raises:
            Rejected: when the issuer has none with this id.
            Unavailable: when the keys have never been read, or could not be read again for an id
                that is not among them.
        """
        if self._keys is None:
            await self._fetch()
        elif time.monotonic() - self._fetched_at >= self._ttl_s:
            self._start_fetching()
        found = self._find(kid)
        if found is None:
            found = await self._find_anew(kid)
        if found is None:
            raise Rejected("the token is signed with a key that its issuer does not have")
        return found

    async def _find_anew(self, kid: str | None) -> Key | None:
        """Look for a key among those that the issuer has by now."""
        pause_s = UNKNOWN_KID_S if self._problem is None else RETRY_S
        if self._fetching is not None or time.monotonic() - self._missed_at >= pause_s:
            self._missed_at = time.monotonic()
            await self._fetch()
        elif self._problem is not None:
            raise Unavailable(self._problem)
        return self._find(kid)

    def _find(self, kid: str | None) -> Key | None:
        assert self._keys is not None
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        """Fetch; of many who need it, one does."""
        await asyncio.shield(self._start_fetching())

    def _start_fetching(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._read())
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._problem = str(error)
            log.warning("the keys of %s can't be read: %s", self._where, error)

    @property
    def _where(self) -> str:
        return str(self._rule.issuerUrl or self._rule.jwksUrl)

    async def _read(self) -> None:
        # Also after a failure: the next attempt in the background has the same distance.
        self._fetched_at = time.monotonic()
        url = self._rule.jwksUrl or await self._discover()
        answer = await self._authorities.ask("GET", url, timeout_ms=self._rule.timeout)
        listed = answer.get("keys") if isinstance(answer, dict) else None
        if not isinstance(listed, list) or len(listed) > MOST_KEYS:
            raise Unavailable(f"{url} has no list of at most {MOST_KEYS} keys")
        keys = dict(found for one in listed if (found := _imported(one)) is not None)
        if not keys:
            raise Unavailable(f"{url} has no key to check a signature with")
        self._keys, self._problem = keys, None

    async def _discover(self) -> str:
        given = str(self._rule.issuerUrl)
        url = given.rstrip("/") + "/.well-known/openid-configuration"
        found = await self._authorities.ask("GET", url, timeout_ms=self._rule.timeout)
        issuer, keys_url = (
            (found.get("issuer"), found.get("jwks_uri"))
            if isinstance(found, dict)
            else (None, None)
        )
        if not isinstance(issuer, str) or issuer.rstrip("/") != given.rstrip("/"):
            raise Unavailable(f"{url} is of another issuer: {issuer}")
        if not isinstance(keys_url, str) or not _as_safe(keys_url, given):
            raise Unavailable(f"{url} names no place for the keys")
        user_info = found.get("userinfo_endpoint")
        if isinstance(user_info, str) and _as_safe(user_info, given):
            self.user_info_url = user_info
        self._issuer = issuer
        return keys_url

    async def start(self) -> None:
        """Begin to fetch; nobody waits for it but the first request."""
        self._start_fetching()

    async def stop(self) -> None:
        """End a fetch."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)


def _as_safe(url: str, issuer: str) -> bool:
    """Say whether a URL that a document names is HTTP(S), and TLS where the issuer has it."""
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and urlsplit(issuer).scheme == "http")


def _imported(found: Any) -> tuple[str | None, Key] | None:
    """Return a key that may verify signatures: a public one. What else a set has is passed over."""
    if not isinstance(found, Mapping) or found.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    operations = found.get("key_ops", ["verify"])
    if found.get("use", "sig") != "sig" or not isinstance(operations, list):
        return None
    if "verify" not in operations:
        return None
    kid = found.get("kid")
    if kid is not None and not isinstance(kid, str):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a key that is too short is not used
            return kid, jwk.import_key(dict(found))
    except (JoseError, ValueError, TypeError, Warning) as error:
        log.warning("a key of an issuer is not used: %s", error)
        return None
