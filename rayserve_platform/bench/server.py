"""A server as a child process: started in a process group of its own, awaited, measured, ended."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.ports import HOST
from rayserve_platform.bench.processes import (
    ProcessMemory,
    adopt_orphans,
    cpu_s_of,
    descendants,
    kill_all,
    memory_of,
)

_POLL_S = 0.5
_TAIL_LINES = 25
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCommand:
    """What to start, where it answers and how long each step may take.

    `ready_s` and `stop_s` are deadlines in seconds: for the first 200, and for leaving by itself
    after SIGTERM before everything below it is killed.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    port: int
    grpc_port: int
    ready_path: str
    log: Path
    ready_s: float = 300.0
    stop_s: float = 15.0


class Server:
    """A server process and all that it starts."""

    def __init__(self, command: ServerCommand) -> None:
        self.command = command
        self.url = f"http://{HOST}:{command.port}"
        self.grpc_target = f"{HOST}:{command.grpc_port}"
        self._began_s = time.monotonic()
        self._before = descendants()
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_s: dict[int, float] = {}

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            BenchError: it can't be started, ends early, or isn't ready in time; with the end of
                its log.
        """
        command = self.command
        try:
            # Not in a session of its own: each session is a scheduling group to Linux (autogroup),
            # and a server of many processes then stalls for up to 500 ms beside its own engine's
            # busy threads on two cores, where it else does not.
            with command.log.open("wb") as log:
                self._process = subprocess.Popen(
                    command.argv, env=command.environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, process_group=0,
                )  # fmt: skip
        except OSError as error:
            raise BenchError(f"{command.name} can't be started: {error}") from error
        while not _answers(command.port, command.ready_path):
            if (status := self._process.poll()) is not None:
                raise BenchError(self._failure(f"ended with status {status} before it was ready"))
            if self.age_s() > command.ready_s:
                raise BenchError(self._failure(f"was not ready within {command.ready_s:g} s"))
            time.sleep(_POLL_S)

    def age_s(self) -> float:
        """Return the seconds since it was started."""
        return time.monotonic() - self._began_s

    def memory(self) -> tuple[ProcessMemory, ...]:
        """Return the memory of every process of the server."""
        return memory_of(descendants() - self._before)

    def cpu_s(self) -> float:
        """Return the CPU seconds that the server's processes have used since each was started.

        One that has ended counts with what it had used when it was last seen: Ray ends workers that
        idle, and without theirs a run could seem to have cost less than nothing.
        """
        self._cpu_s |= cpu_s_of(descendants() - self._before)
        return sum(self._cpu_s.values())

    def stop(self) -> None:
        """Ask the server to leave, then kill what is left of it, in whatever session that is."""
        members = descendants() - self._before
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.command.stop_s)
        # Also without a process: the signal may have come while it was being started.
        left = kill_all(members, self._before)
        if self._process is not None:
            self._process.wait()
            self._process = None
        if left:
            raise BenchError(f"{self.command.name}: processes {sorted(left)} survived SIGKILL")

    def _failure(self, what: str) -> str:
        return f"{self.command.name} {what}; end of {self.command.log}:\n{tail(self.command.log)}"


@contextmanager
def running(command: ServerCommand) -> Iterator[Server]:
    """Yield the server once it answers; end it and all its processes on the way out.

    While they are being ended SIGINT is ignored, so that a second Ctrl-C leaves none behind.
    """
    adopt_orphans()
    server = Server(command)
    try:
        server.start()
        yield server
    finally:
        with _uninterrupted():
            server.stop()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stopping_by_signal() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that its servers end with it.

    A shell starts background jobs with SIGINT ignored; here it counts all the same, as both others
    are passed on as SIGINT. SIGHUP stays ignored under nohup.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    previous = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    # Python's own handler, which asyncio recognises and turns into a cancelled task.
    previous[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a log file."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def environment(*layers: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without Ray's addresses, with the layers on top."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for layer in layers:
        inherited |= layer
    return inherited
