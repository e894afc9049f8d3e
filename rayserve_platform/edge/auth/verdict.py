"""What an authority said, kept for a while: bounded, and asked once for many who wait.

Good and bad verdicts are kept apart, so that junk tokens can't push good ones out.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachebox import VTTLCache

T = TypeVar("T")

POSITIVE_TTL_S = 60.0
NEGATIVE_TTL_S = 5.0
"""A token that is refused may be valid soon: a role bound, a key distributed."""
MOST = 10_000
"""Verdicts of either kind; one has about 1 KiB."""


class Rejected(Exception):
    """Credentials that an authority does not know, or a condition that does not hold.

    The text is for the log.
    """


class Unavailable(Exception):
    """An authority that could not be asked, or did not answer as it should. For the log."""


@dataclass(frozen=True, slots=True)
class Good(Generic[T]):
    """A verdict that may be kept until `expires` (Unix seconds), if that is sooner."""

    value: T
    expires: float | None = None


class Verdicts(Generic[T]):
    """Verdicts by what they are about.

    Args:
        ttl_s: how long after the question good ones are kept; 0: not at all.
    """

    def __init__(self, ttl_s: float = POSITIVE_TTL_S) -> None:
        self._ttl_s = ttl_s
        self._good: VTTLCache[bytes, T] = VTTLCache(MOST)
        self._bad: VTTLCache[bytes, str] = VTTLCache(MOST)
        self._asking: dict[bytes, asyncio.Task[T]] = {}
        # Tokens are kept under a keyed digest: a dump of the memory tells none.
        self._secret = secrets.token_bytes(32)

    async def get(self, about: str, ask: Callable[[], Awaitable[Good[T]]]) -> T:
        """Return the verdict about something; `ask` is called where none is kept.

        Raises:
            Rejected: when the verdict is bad.
            Unavailable: when there is none.
        """
        key = hmac.digest(self._secret, about.encode(), "sha256")
        kept = self._good.get(key)
        if kept is not None:
            return kept
        reason = self._bad.get(key)
        if reason is not None:
            raise Rejected(reason)
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._ask(key, ask))
            self._asking[key] = asking
            asking.add_done_callback(lambda task: self._done(key, task))
        # Shielded: one who leaves must not take the answer from those who still wait.
        return await asyncio.shield(asking)

    def _done(self, key: bytes, task: asyncio.Task[T]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # looked at, for when everybody has left

    async def _ask(self, key: bytes, ask: Callable[[], Awaitable[Good[T]]]) -> T:
        # What is taken back while the answer is on its way is not served for that much longer.
        asked_at = time.monotonic()
        try:
            found = await ask()
        except Rejected as rejected:
            self._bad.insert(key, str(rejected), ttl=NEGATIVE_TTL_S)
            raise
        ttl_s = self._ttl_s - (time.monotonic() - asked_at)
        if found.expires is not None:
            ttl_s = min(ttl_s, found.expires - time.time())
        if ttl_s > 0:
            self._good.insert(key, found.value, ttl=ttl_s)
        return found.value

    async def stop(self) -> None:
        """End what is being asked."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
