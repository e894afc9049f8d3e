"""Sliding windows in a Redis or Valkey server, where all replicas count together.

The windows are the `limits` library's: two keys each, changed by scripts on the server, so that of
requests at the same moment in two replicas no more than the limit pass.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.quotas.counts import Limit, LocalCounts, Window
from rayserve_platform.settings.limits import MOST, Shared

UNREACHED = Gauge(
    "rayserve_quotas_unshared", "1 while the server of the shared counts does not answer."
)
FAILURES = Counter("rayserve_quota_store_failures", "Questions to it that were not answered.")

PREFIX = "rayserve"
RETRY_S = 1.0
"""After a failure it is left alone for so long: nobody waits for it meanwhile."""
AT_A_TIME = 64
MOST_CONNECTIONS = 16
CLOSING_S = 2.0

log = logging.getLogger("rayserve.quotas")

Answer = TypeVar("Answer")


class Unreached(Exception):
    """The server does not answer."""


class SharedCounts:
    """Windows on a server.

    Tokens are sent on as they come, without anybody waiting for it; what comes meanwhile is added
    up and sent together.

    Args:
        storage: a storage of the `limits` library.
        clock: seconds; never goes back.
    """

    def __init__(
        self, storage: Any, settings: Shared, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._storage = storage
        self._failures = (*storage.base_exceptions, OSError, TimeoutError)
        self._timeout_s = settings.timeout_s
        self._refuses = settings.unreachable == "refuse"
        self._clock = clock
        self._here = LocalCounts(clock)
        self._silent_until = 0.0
        self._is_silent = False
        self._unsent: dict[tuple[str, int], int] = {}
        self._sending: asyncio.Task[None] | None = None
        # Waiting for one costs less than a connection of one's own.
        self._connections = asyncio.Semaphore(MOST_CONNECTIONS)

    async def take(self, limits: Sequence[Limit]) -> list[tuple[bool, Window]]:
        """Count one more of each, where that keeps within it; raises as `_or_here`."""
        return await self._or_here(
            lambda: asyncio.gather(*map(self._taken, limits)), lambda: self._here.take(limits)
        )

    async def look(self, limits: Sequence[Limit]) -> list[Window]:
        """Return the windows without counting; raises as `_or_here`."""
        return await self._or_here(
            lambda: asyncio.gather(*map(self._window, limits)), lambda: self._here.look(limits)
        )

    def add(self, limit: Limit, amount: int) -> None:
        """Count what has been used; it is sent later."""
        # Here too, so that an outage finds a window that is not empty.
        self._here.add(limit, amount)
        at = (limit.key, limit.window_s)
        self._unsent[at] = self._unsent.get(at, 0) + amount
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def close(self) -> None:
        """Send what is unsent, and close the connections."""
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=CLOSING_S)
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._storage.bridge.get_connection().aclose()

    async def _taken(self, limit: Limit) -> tuple[bool, Window]:
        async with self._connections:
            taken = await self._storage.acquire_sliding_window_entry(
                limit.key, limit.amount, limit.window_s, 1
            )
        return bool(taken), await self._window(limit)

    async def _window(self, limit: Limit) -> Window:
        key, window_s = limit.key, limit.window_s
        async with self._connections:
            found = await self._storage.get_sliding_window(key, window_s)
        previous, previous_ttl_s, current, current_ttl_s = found
        # A current window's key lives for one window more; its previous one for as long as it does.
        left_s = previous_ttl_s if previous else current_ttl_s - window_s
        unsent = max(0, self._unsent.get((key, window_s), 0))
        return Window(
            previous=previous,
            current=current + unsent,
            left_s=min(max(left_s, 0.0), window_s),
            window_s=window_s,
        )

    async def _send(self) -> None:
        while self._unsent:
            some = dict(list(self._unsent.items())[:AT_A_TIME])
            for (key, window_s), amount in some.items():
                try:
                    await self._asked(
                        lambda key=key, window_s=window_s, amount=amount: (  # type: ignore[misc]
                            self._storage.acquire_sliding_window_entry(key, MOST, window_s, amount)
                        )
                    )
                except Unreached:
                    # They count here; an outage must not make the list of the unsent grow for ever.
                    self._unsent.clear()
                    return
                left = self._unsent.pop((key, window_s)) - amount
                if left:
                    self._unsent[key, window_s] = left

    async def _or_here(
        self, there: Callable[[], Awaitable[Answer]], here: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Ask the server, or count in this replica while it does not answer.

        Raises:
            PlatformError: UNAVAILABLE when the settings refuse requests then.
        """
        try:
            return await self._asked(there)
        except Unreached:
            if self._refuses:
                raise PlatformError(
                    Code.UNAVAILABLE,
                    "The service that counts requests is not available. Retry later.",
                    retry_after_s=RETRY_S,
                ) from None
            return await here()

    async def _asked(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        if self._clock() < self._silent_until:
            raise Unreached
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await ask()
        except self._failures as error:
            self._failed(error)
            raise Unreached from None
        if self._is_silent:
            self._is_silent = False
            UNREACHED.set(0)
            log.warning("quotas: the server of the shared counts answers again")
        return answer

    def _failed(self, error: BaseException) -> None:
        self._silent_until = self._clock() + RETRY_S
        FAILURES.inc()
        UNREACHED.set(1)
        if not self._is_silent:
            meanwhile = "requests are refused" if self._refuses else "each replica counts by itself"
            log.error(
                "quotas: the server of the shared counts does not answer (%s); %s",
                type(error).__name__,
                meanwhile,
            )
        self._is_silent = True


def open_shared(settings: Shared) -> SharedCounts:
    """Make the counts of a server; it need not answer yet.

    Raises:
        PlatformError: when the password's variable is not set, or the extra `redis` is missing.
    """
    from limits.aio.storage import RedisStorage
    from limits.errors import ConfigurationError

    options: dict[str, Any] = {}
    if settings.password_env is not None:
        password = os.environ.get(settings.password_env)
        if not password:
            raise PlatformError(
                Code.INTERNAL, f"quotas: the variable {settings.password_env} is not set"
            )
        options["password"] = password
    if settings.ca_file is not None:
        options["ssl_ca_certs"] = settings.ca_file
    try:
        storage = RedisStorage(
            f"async+{settings.url}", implementation="redispy", key_prefix=PREFIX, **options
        )
    except ConfigurationError:
        raise PlatformError(
            Code.INTERNAL, "quotas: shared counts need the extra: pip install '.[redis]'"
        ) from None
    return SharedCounts(storage, settings)
