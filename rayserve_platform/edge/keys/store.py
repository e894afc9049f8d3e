"""Keys while serving: kept up to date, replaced at once, and never lost to a bad file.

What can't be read changes nothing: the last good set goes on counting, the log says so and so do
the metrics, until the mistake is mended.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from prometheus_client import Counter, Gauge

from rayserve_platform.edge.auth.keystore import Key
from rayserve_platform.edge.auth.verdict import Unavailable
from rayserve_platform.edge.keys.change import KeyFault
from rayserve_platform.edge.keys.document import read_keys
from rayserve_platform.edge.keys.ring import KeyRing
from rayserve_platform.edge.keys.token import parse

RELOADS = Counter("rayserve_key_reloads", "Times that API keys were read, by result.", ("result",))
KEYS = Gauge("rayserve_keys", "API keys of the set that counts, disabled ones left out.")
STALE = Gauge(
    "rayserve_keys_stale", "1 while the API keys can't be read and an older set counts, or none."
)

RETRY_S = 1.0
"""After a failure it is tried again this often, whether or not a change is seen."""

log = logging.getLogger("rayserve.keys")


class Source(Protocol):
    """Where the bytes of keys and pepper come from."""

    async def read(self) -> tuple[bytes, bytes]:
        """Return keys and pepper as they are now; raises `KeyFault`."""
        ...

    async def changed(self) -> None:
        """Wait until they may be others than those that `read` last returned."""
        ...

    async def close(self) -> None:
        """Let go of what the source holds."""
        ...


class ReloadingKeys:
    """A `KeyStore` over a source that can change.

    Args:
        clock: Unix seconds now.
    """

    def __init__(self, source: Source, *, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._ring: KeyRing | None = None
        self._content: tuple[bytes, bytes] | None = None
        self._fault = ""
        self._following: asyncio.Task[None] | None = None

    def find(self, token: str) -> Key | None:
        """Return the key that a token is, or None.

        Raises:
            Unavailable: while no set of keys could be read at all, for what may be one.
        """
        if self._ring is not None:
            return self._ring.find(token)
        if parse(token) is None:
            return None
        raise Unavailable("no API keys could be read yet")

    async def start(self) -> None:
        """Read the keys, and from then on follow their changes.

        Keys that can't be read yet are no reason not to start: till then requests with a key are
        refused.
        """
        await self._reload()
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow changes no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None
        await self._source.close()

    async def _follow(self) -> None:
        while True:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if self._fault else None):
                        await self._source.changed()
            except Exception:
                log.exception("changes of the API keys could not be followed; they are read anew")
                await asyncio.sleep(RETRY_S)
            await self._reload()

    async def _reload(self) -> None:
        try:
            content = await self._source.read()
            if content != self._content:
                # Thousands of keys take a while to check.
                self._ring = await asyncio.to_thread(self._made, *content)
                self._content = content
                log.info("API keys: %d count now", len(self._ring))
        except KeyFault as fault:
            self._failed(str(fault))
        except Exception as error:
            log.exception("the API keys could not be read")
            self._failed(type(error).__name__)
        else:
            self._fault = ""
            RELOADS.labels("ok").inc()
            KEYS.set(len(self._ring or ()))
            STALE.set(0)

    def _made(self, keys: bytes, pepper: bytes) -> KeyRing:
        return KeyRing(read_keys(keys), pepper, self._clock)

    def _failed(self, fault: str) -> None:
        RELOADS.labels("failed").inc()
        STALE.set(1)
        if fault != self._fault:
            kept = "none count" if self._ring is None else f"the last {len(self._ring)} go on"
            log.error("API keys: %s; %s", fault, kept)
        self._fault = fault
