"""Requests with guides, which are examined apart: compiling one can take very long."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rayserve_platform.core.errors import Code, PlatformError, internal_error
from rayserve_platform.core.messages import Guided
from rayserve_platform.runtimes.genai.examiner import unfit

log = logging.getLogger("rayserve.genai")

LIMIT_S = 10.0
"""800 optional properties of an object take 16 s, and compiling can't be interrupted."""

Ready = Callable[[], object]
Refuse = Callable[[PlatformError], object]


class Guides:
    """Examines guides one after another, in a thread of its own.

    Args:
        check: raises for a guide that can't be used.
    """

    def __init__(self, check: Callable[[Guided], None], *, limit_s: float = LIMIT_S) -> None:
        self._check = check
        self._limit_s = limit_s
        self._thread = ThreadPoolExecutor(1, "guides")
        self._waiting: dict[int, tuple[Guided, Ready, Refuse]] = {}
        self._lock = threading.Lock()
        self._is_stuck = False

    def put(self, number: int, guided: Guided, ready: Ready, refuse: Refuse) -> None:
        """Have a request's guide examined; one of the two is called then, unless it is left."""
        if self._is_stuck:
            refuse(_busy())
            return
        self._waiting[number] = guided, ready, refuse
        self._thread.submit(self._examine, number)

    def leave(self, number: int) -> None:
        """Forget a request; if it was ready already, `ready` has returned."""
        with self._lock:
            self._waiting.pop(number, None)

    def _examine(self, number: int) -> None:
        waiting = self._waiting.get(number)
        if waiting is None:
            return
        timer = threading.Timer(self._limit_s, self._give_up, [number])
        timer.start()
        error: PlatformError | None = None
        try:
            self._check(waiting[0])
        except PlatformError as caught:
            error = caught
        except Exception:
            log.exception("a guide could not be examined")
            error = internal_error()
        timer.cancel()
        self._is_stuck = False
        with self._lock:
            if self._waiting.pop(number, None) is None:
                return
            _, ready, refuse = waiting
            if error is None:
                ready()
            else:
                refuse(error)

    def _give_up(self, number: int) -> None:
        """Refuse the one that takes too long, and all behind it."""
        self._is_stuck = True
        with self._lock:
            for other, (guided, _, refuse) in self._waiting.items():
                late = f"compiling it takes longer than {self._limit_s:g} s"
                refuse(unfit(guided, late) if other == number else _busy())
            self._waiting.clear()


def _busy() -> PlatformError:
    return PlatformError(
        Code.RESOURCE_EXHAUSTED,
        "Another request's guide is being compiled. Retry later.",
        retry_after_s=LIMIT_S,
    )
