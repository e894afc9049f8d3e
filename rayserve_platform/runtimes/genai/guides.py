"""Requests with guides, which are examined apart: compiling one can take long."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from rayserve_platform.core.errors import Code, PlatformError, internal_error
from rayserve_platform.core.messages import Guided

log = logging.getLogger("rayserve.genai")

PATIENCE_S = 10.0
"""What one guide may take: whoever has waited for as long does better elsewhere."""

Ready = Callable[[], object]
Refuse = Callable[[PlatformError], object]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request whose guide has not been examined."""

    guided: Guided
    ready: Ready
    refuse: Refuse
    since: float = field(default_factory=time.monotonic)


class Guides:
    """Examines guides one after another, in a thread of its own.

    Args:
        check: raises for a guide that can't be used.
        patience_s: how long a request waits until its guide is looked at.
    """

    def __init__(self, check: Callable[[Guided], None], *, patience_s: float = PATIENCE_S) -> None:
        self._check = check
        self._patience_s = patience_s
        self._thread = ThreadPoolExecutor(1, "guides")
        self._waiting: dict[int, Waiting] = {}
        self._lock = threading.Lock()

    def put(self, number: int, guided: Guided, ready: Ready, refuse: Refuse) -> None:
        """Have a request's guide examined; one of the two is called then, unless it is left."""
        with self._lock:
            self._waiting[number] = Waiting(guided, ready, refuse)
        self._thread.submit(self._examine, number)

    def leave(self, number: int) -> bool:
        """Forget a request, and say if it waited; if it was ready, `ready` has returned."""
        with self._lock:
            return self._waiting.pop(number, None) is not None

    def _examine(self, number: int) -> None:
        with self._lock:
            waiting = self._waiting.get(number)
        if waiting is None:
            return
        error = self._error(waiting)
        with self._lock:
            if self._waiting.pop(number, None) is None:
                return
            if error is None:
                waiting.ready()
            else:
                waiting.refuse(error)

    def _error(self, waiting: Waiting) -> PlatformError | None:
        """Return what is wrong with a guide."""
        if time.monotonic() - waiting.since > self._patience_s:
            return _busy()
        try:
            self._check(waiting.guided)
        except PlatformError as error:
            return error
        except Exception:
            log.exception("a guide could not be examined")
            return internal_error()
        return None


def _busy() -> PlatformError:
    return PlatformError(
        Code.RESOURCE_EXHAUSTED,
        "Other requests' guides are being compiled. Retry later.",
        retry_after_s=PATIENCE_S,
    )
