"""The engine's process, as the runtime sees it.

OpenVINO GenAI (2026.4) holds Python's global lock throughout a step, so no event loop could live
beside it; and a fault in native code ends only this process.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from rayserve_platform.core.arrivals import Arrivals
from rayserve_platform.core.errors import Code, PlatformError, engine_unavailable
from rayserve_platform.runtimes.genai.wire import (
    Call,
    Cancel,
    Facts,
    Items,
    Ping,
    frame,
    read_frame,
)
from rayserve_platform.settings.genai import GenAIApp

log = logging.getLogger("rayserve.genai")

MODULE = "rayserve_platform.runtimes.genai.worker"
SILENCE_LIMIT_S = 60.0
"""A step of one piece of a prompt takes seconds at most."""
END_WAIT_S = 10.0


def _spawn(end: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", MODULE], stdin=end.fileno())


class EngineProcess:
    """Started once. `is_alive` until the process has ended, for whatever reason."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._pending: dict[int, Arrivals[Any]] = {}
        self._numbers = itertools.count(1)
        self._asked_at: float | None = None
        self.is_alive = False

    async def start(self, settings: GenAIApp, path: Path) -> Facts:
        """Start the process and wait until it has loaded the model.

        Raises:
            PlatformError: what is wrong with the model; UNAVAILABLE if the process ends.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            # Not by asyncio, whose ways to watch a child differ from loop to loop and thread to
            # thread: its end is seen by the socket's.
            self._process = await asyncio.to_thread(_spawn, theirs)
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        self._send((settings, path))
        try:
            facts = await read_frame(reader)
        except (EOFError, ConnectionError):
            raise PlatformError(
                Code.UNAVAILABLE, "the engine ended while it loaded the model; its log says why"
            ) from None
        if not isinstance(facts, Facts):
            raise facts
        self.is_alive = True
        self._reading = asyncio.create_task(self._read(reader))
        return facts

    async def stop(self) -> None:
        """End the process."""
        if self._process is None or self._writer is None:
            return
        self.is_alive = False
        self._writer.close()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        try:
            await asyncio.to_thread(self._process.wait, END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def call(self, what: Any) -> AsyncGenerator[list[Any], None]:
        """Yield what comes of a call; leaving the iterator cancels it.

        Raises:
            PlatformError: what the call failed of; UNAVAILABLE when the process has ended.
        """
        if not self.is_alive:
            raise engine_unavailable()
        number, pending = next(self._numbers), Arrivals[Any]()
        try:
            message = frame(Call(number, what))
        except RecursionError:
            raise PlatformError(
                Code.INVALID_ARGUMENT, "The request is nested too deeply."
            ) from None
        self._pending[number] = pending
        self._write(message)
        try:
            async for items in pending.take():
                yield items
        finally:
            if self._pending.pop(number, None) is not None:
                self._send(Cancel(number))

    async def ask(self, what: Any) -> Any:
        """Return the one answer to a call; raises as `call`."""
        async with contextlib.aclosing(self.call(what)) as answers:
            [answer] = [item async for items in answers for item in items]
            return answer

    def check(self) -> None:
        """Raise if the process has ended, or has not answered for long.

        It is asked at each call of this, and has until a later one to answer.
        """
        late = self._asked_at is not None and time.monotonic() - self._asked_at > SILENCE_LIMIT_S
        if late or not self.is_alive:
            raise engine_unavailable()
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._send(Call(0, Ping()))

    def _send(self, message: object) -> None:
        self._write(frame(message))

    def _write(self, message: bytes) -> None:
        assert self._writer is not None
        if not self._writer.is_closing():  # where it has ended, `_read` sees to that
            self._writer.write(message)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """Hand on what the process says until it ends."""
        try:
            while True:
                self._deliver(await read_frame(stream))
        except (EOFError, ConnectionError) as error:
            if self.is_alive:
                log.error("the engine's process has ended: %r", error)  # noqa: TRY400  # no fault of ours
        finally:
            self.is_alive = False
            for pending in self._pending.values():
                pending.put([engine_unavailable()])
            self._pending.clear()

    def _deliver(self, items: Items) -> None:
        for number, item in items:
            if number == 0:
                self._asked_at = None
                continue
            pending = self._pending.get(number)
            if pending is None:
                continue  # it has been left
            pending.put([item])
            if item is None or isinstance(item, Exception):
                del self._pending[number]
