"""Rego policies: evaluated in child processes, since the engine can neither be bounded nor trusted.

A child that does not answer in time, or dies, is replaced; the request it had is UNAVAILABLE.
"""

import asyncio
import logging
import os
import socket
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import PolicyFault
from rayserve_platform.edge.auth.selector import as_json
from rayserve_platform.edge.auth.verdict import Rejected, Unavailable
from rayserve_platform.settings.auth.authorization import Opa

log = logging.getLogger("rayserve.auth")

WORKERS = 2
START_S = 10.0
"""In which a child must have compiled all policies."""
LIMIT_S = 1.0
"""Of one evaluation; also how long a request waits for a child that is free."""
PAUSE_S = 1.0
"""After a child that could not be started."""
MAX_WAITING = 64
MAX_BYTES = 2**16
"""Of an input, and of a result."""
MAX_DEPTH = 32
"""Of an input: the engine's own stack is not bounded."""
SIZE = struct.Struct("!I")
SCRIPT = Path(__file__).with_name("rego_worker.py")

Text = tuple[str, bool]
"""A policy, and whether all of its rules are its result."""


class Worker:
    """A child process, with its policies compiled. Starting and stopping one blocks.

    Raises:
        PolicyFault: when a policy can't be used.
        OSError: when the child can't be started, does not get ready, or dies; so do its methods.
    """

    def __init__(self, policies: list[Text]) -> None:
        spec = find_spec("regopy")
        if spec is None or spec.origin is None:
            raise PolicyFault("Rego needs the extra: pip install '.[rego]'")
        folder = str(Path(spec.origin).parent.parent)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(SCRIPT), folder, str(START_S), str(LIMIT_S)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(),
            )
        try:
            self._socket.settimeout(START_S)
            self._socket.sendall(_framed(orjson.dumps(policies)))
            with self._socket.makefile("rb") as stream:
                answer = orjson.loads(stream.read(_size(stream.read(SIZE.size))))
        except (OSError, ValueError) as error:
            self.stop()
            raise OSError(f"the policy's process did not get ready: {error}") from None
        if "refused" in answer:
            self.stop()
            raise PolicyFault(answer["refused"])
        self._socket.setblocking(False)  # noqa: FBT003  # the standard library's

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def ask(self, message: bytes) -> bytes:
        """Return the answer to a message; only one may be asked at a time."""
        await asyncio.get_running_loop().sock_sendall(self._socket, _framed(message))
        return await self._read(_size(await self._read(SIZE.size)))

    async def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = await asyncio.get_running_loop().sock_recv(self._socket, size - len(found))
            if not piece:
                raise ConnectionResetError("the policy's process died")
            found += piece
        return found

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """Return what an interpreter may need; `opa.runtime` shows it to policies."""
    name = "LD_LIBRARY_PATH"
    return {name: os.environ[name]} if name in os.environ else {}


def _framed(content: bytes) -> bytes:
    return SIZE.pack(len(content)) + content


def _size(head: bytes) -> int:
    """Return how much follows."""
    if len(head) < SIZE.size:
        raise ConnectionResetError("the policy's process died")
    size: int = SIZE.unpack(head)[0]
    if size > MAX_BYTES:
        raise OSError("the policy's process answers nonsense")
    return size


class Workers:
    """The children of a guard: few, started with it and not for a request."""

    def __init__(self) -> None:
        self._policies: list[Text] = []
        self._all: set[Worker] = set()
        self._idle: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: set[asyncio.Future[Worker]] = set()
        self._waiting = 0
        self._is_stopped = False

    @property
    def pids(self) -> frozenset[int]:
        """Of the processes that there are now."""
        return frozenset(worker.pid for worker in self._all)

    def add(self, text: str, *, all_values: bool, where: str) -> int:
        """Take a policy; returns its number.

        Raises:
            PolicyFault: when it can't be used.
        """
        policy = (text, all_values)
        try:
            Worker([policy]).stop()
        except PolicyFault as fault:
            raise PolicyFault(f"{where}: {fault}") from None
        except OSError as error:
            raise PolicyFault(f"{where}: can't be compiled: {error}") from None
        self._policies.append(policy)
        return len(self._policies) - 1

    async def start(self) -> None:
        """Start the children, where there is a policy for them."""
        if self._policies:
            starting = [self._begin(self._start_one()) for _ in range(WORKERS)]
            await asyncio.wait(starting, timeout=START_S)

    async def _start_one(self) -> None:
        """Start a child; tried again for ever."""
        while True:
            # A thread can't be cancelled: `stop` waits for what it makes.
            starting = asyncio.ensure_future(asyncio.to_thread(Worker, self._policies))
            self._starting.add(starting)
            try:
                worker = await asyncio.shield(starting)
            except (OSError, PolicyFault) as error:
                self._starting.discard(starting)
                log.warning("a process for Rego policies can't be started: %s", error)
                await asyncio.sleep(PAUSE_S)
                continue
            self._all.add(worker)
            self._starting.discard(starting)
            self._idle.put_nowait(worker)
            return

    async def evaluate(self, number: int, given: bytes) -> Any:
        """Return what a policy finds over a JSON document, in a list; empty: nothing.

        Raises:
            Unavailable: when that can't be said.
        """
        if self._is_stopped or self._waiting >= MAX_WAITING:
            reason = "have ended" if self._is_stopped else "have too many requests waiting"
            raise Unavailable(f"the processes for Rego policies {reason}")
        self._waiting += 1
        try:
            async with asyncio.timeout(LIMIT_S):
                worker = await self._idle.get()
        except TimeoutError:
            raise Unavailable(f"no process for Rego policies was free in {LIMIT_S:g} s") from None
        finally:
            self._waiting -= 1
        # Shielded: one who leaves must not leave an answer behind for the next.
        return await asyncio.shield(self._begin(self._ask(worker, SIZE.pack(number) + given)))

    async def _ask(self, worker: Worker, message: bytes) -> Any:
        try:
            async with asyncio.timeout(LIMIT_S):
                content = await worker.ask(message)
            answer = orjson.loads(content)
            found = answer.get("found", [])
            if not isinstance(found, list) or not {"found", "fault"} & answer.keys():
                raise ValueError("no answer")  # noqa: TRY301
        except (OSError, ValueError, AttributeError) as error:
            self._begin(self._replace(worker))
            reason = str(error) or f"it took more than {LIMIT_S:g} s"
            raise Unavailable(f"the policy was not evaluated: {reason}") from None
        except asyncio.CancelledError:
            self._begin(self._replace(worker))
            raise
        self._idle.put_nowait(worker)
        if "fault" in answer:
            raise Unavailable(f"the policy has no value: {answer['fault']}")
        return found

    async def _replace(self, worker: Worker) -> None:
        await asyncio.to_thread(worker.stop)
        self._all.discard(worker)
        await self._start_one()

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, for when everybody has left

    async def stop(self) -> None:
        """End the children and what they are asked, for good."""
        self._is_stopped = True
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        started = await asyncio.gather(*self._starting, return_exceptions=True)
        for worker in {*self._all, *started}:
            if isinstance(worker, Worker):
                worker.stop()
        self._all.clear()


class RegoCheck:
    """The rule `allow` of a policy must be true; anything else refuses."""

    waits = True
    grants_loading = False
    remembers = False

    def __init__(self, rule: Opa, workers: Workers, where: str) -> None:
        self._workers = workers
        self._all_values = rule.allValues
        self._number = workers.add(rule.rego, all_values=rule.allValues, where=f"{where}.opa.rego")

    async def check(self, document: Document) -> Any:
        """Evaluate it over the authorization JSON."""
        roots = document.roots()
        if not _is_flat(roots, MAX_DEPTH):
            raise Unavailable(f"the authorization JSON has more than {MAX_DEPTH} levels")
        given = as_json(roots)
        if len(given) > MAX_BYTES:
            raise Unavailable(f"the authorization JSON has more than {MAX_BYTES} bytes")
        found = await self._workers.evaluate(self._number, given)
        values = found[0] if found else {}
        if not self._all_values:
            values = {"allow": values}
        if not isinstance(values, dict) or values.get("allow") is not True:
            raise Rejected("'allow' is not true")
        return values

    async def stop(self) -> None:
        """Do nothing: the guard's sources end the processes."""


def _is_flat(found: Any, levels: int) -> bool:
    if isinstance(found, dict):
        return levels > 0 and all(_is_flat(one, levels - 1) for one in found.values())
    if isinstance(found, list | tuple):
        return levels > 0 and all(_is_flat(one, levels - 1) for one in found)
    return True
