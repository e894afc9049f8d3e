"""Guides are compiled first in a process that may end by it (`compiler`).

Compiling one can't be interrupted, recurses as deep as the guide is nested, and takes what memory
it likes; there the kernel ends it. What gets through is compiled in the engine's process as well:
that is the same work, with more stack.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.messages import Guided
from rayserve_platform.runtimes.genai.examiner import TOO_LARGE, unfit
from rayserve_platform.runtimes.genai.wire import frame, frames

log = logging.getLogger("rayserve.genai")

MODULE = "rayserve_platform.runtimes.genai.compiler"
LIMIT_S = 10.0
"""For one guide: 800 optional properties of an object take 16 s."""
ROOM_BYTES = 512 << 20
"""What compiled guides may take here, and as much in the engine's process; one for an object of 40
properties takes 1 MB. The library forgets none by itself; when half is full, both forget all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the process is told first; see `Trial`."""

    path: Path
    logits: int
    end_ids: frozenset[int]
    limit_s: float
    room_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What has come of a guide.

    Args:
        error: why it can't be used.
        is_full: whether the process should be replaced.
    """

    error: PlatformError | None = None
    is_full: bool = False


class Trial:
    """Tries guides in a process, which is replaced when it has ended or is full.

    Args:
        path: of the model.
        logits, end_ids: as the examiner's.
        forget: called before the first guide of a process that replaces one, so that nobody keeps
            more than it does.
    """

    def __init__(
        self,
        path: Path,
        *,
        logits: int,
        end_ids: frozenset[int],
        forget: Callable[[], object],
        limit_s: float = LIMIT_S,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        self._setup = Setup(
            path=path, logits=logits, end_ids=end_ids, limit_s=limit_s, room_bytes=room_bytes
        )
        self._forget = forget
        self._is_forgetful = False
        self._start()

    @property
    def pid(self) -> int:
        """The process that is there now."""
        return self._process.pid

    def check(self, guided: Guided) -> None:
        """Compile a guide. Blocks, for seconds at most; for one thread at a time.

        Raises:
            PlatformError: INVALID_ARGUMENT saying what is wrong with it.
            RuntimeError: if the process can't start.
        """
        self._be_ready()
        if self._is_forgetful:
            self._is_forgetful = False
            self._forget()
        with contextlib.suppress(ConnectionError):  # it will say nothing, then
            self._socket.sendall(frame(guided))
        verdict = self._hear()
        if verdict is None:
            raise unfit(guided, self._fault(self._replace()))
        if verdict.is_full:
            self._replace()
        if verdict.error is not None:
            raise verdict.error

    def stop(self) -> int:
        """End the process, and return what it has ended by, as `Popen.returncode`."""
        self._socket.close()
        self._process.kill()  # which does nothing to one that has ended
        return self._process.wait()

    def _start(self) -> None:
        self._is_ready = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-m", MODULE], stdin=theirs.fileno())
        self._verdicts: Iterator[Any] = frames(os.dup(self._socket.fileno()))
        self._socket.sendall(frame(self._setup))

    def _be_ready(self) -> None:
        if self._process.poll() is not None:  # by no guide
            self._replace()
        if not self._is_ready and self._hear() is None:
            self.stop()
            raise RuntimeError("the process that tries guides can't start")
        self._is_ready = True

    def _hear(self) -> Verdict | None:
        """Return the next verdict, or None when the process has ended."""
        try:
            return next(self._verdicts, None)
        except ConnectionError:
            return None

    def _replace(self) -> int:
        """Return what the process that was there has ended by."""
        ended_by = self.stop()
        log.info("the process that tries guides is replaced; it ended by %d", ended_by)
        self._start()
        self._is_forgetful = True
        return ended_by

    def _fault(self, ended_by: int) -> str:
        if ended_by == -signal.SIGALRM:
            return f"compiling it takes longer than {self._setup.limit_s:g} s"
        return TOO_LARGE
