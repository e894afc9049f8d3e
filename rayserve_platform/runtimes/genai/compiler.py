"""`python -m rayserve_platform.runtimes.genai.compiler`: the process that compiles guides first.

Standard input is a socket: guides come, verdicts go (`trial`).
"""

import logging
import os
import resource
import signal
import socket
import threading
from pathlib import Path

import openvino_genai

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.messages import Guided
from rayserve_platform.runtimes.genai.examiner import Examiner
from rayserve_platform.runtimes.genai.trial import Setup, Verdict
from rayserve_platform.runtimes.genai.wire import frame, frames

START_LIMIT_S = 120.0
STACK_BYTES = 1 << 20
"""Threads of the engine's process have at least 2 MiB."""


def main() -> None:
    """Serve one engine until it closes the socket."""
    logging.basicConfig(level=logging.INFO)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_serve, name="compiler")
    thread.start()
    thread.join()


def _serve() -> None:
    messages, outgoing = frames(os.dup(0)), socket.socket(fileno=0)
    setup: Setup = next(messages)
    signal.setitimer(signal.ITIMER_REAL, START_LIMIT_S)
    tokenizer = openvino_genai.Tokenizer(str(setup.path))
    examiner = Examiner(tokenizer, logits=setup.logits, end_ids=setup.end_ids)
    examiner.check(Guided(kind="json", value=""))  # makes what is made once
    size, kept = _memory()
    resource.setrlimit(resource.RLIMIT_AS, (size + setup.room_bytes,) * 2)
    error: PlatformError | None = None
    while True:
        signal.setitimer(signal.ITIMER_REAL, 0)
        is_full = _memory()[1] > kept + setup.room_bytes // 2
        outgoing.sendall(frame(Verdict(error=error, is_full=is_full)))
        guided = next(messages, None)
        if guided is None:
            os._exit(0)
        signal.setitimer(signal.ITIMER_REAL, setup.limit_s)
        error = _fault(guided, examiner)


def _fault(guided: Guided, examiner: Examiner) -> PlatformError | None:
    try:
        examiner.check(guided)
    except PlatformError as error:
        return error
    return None


def _memory() -> tuple[int, int]:
    """Return this process's addresses and its resident memory, in bytes."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
    size, resident = (int(count) * resource.getpagesize() for count in pages[:2])
    return size, resident


if __name__ == "__main__":
    main()
