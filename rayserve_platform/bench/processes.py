"""The processes below this one: who they are, what memory they hold, and how they are ended.

Linux: this process can become the "subreaper" of its descendants, so that a daemon whose parent
died stays in its tree instead of moving to init, and none is forgotten.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

import psutil  # type: ignore[import-untyped,unused-ignore]

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_MIB = 1024 * 1024
_KILL_ROUNDS = 20
_KILL_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Resident memory of one process in MB (2**20 bytes); shared pages count in each process."""

    pid: int
    name: str
    rss_mb: float


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends. No-op off Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> frozenset[int]:
    """Return the ids of all processes below this one."""
    return frozenset(process.pid for process in psutil.Process().children(recursive=True))


def memory_of(pids: Iterable[int]) -> tuple[ProcessMemory, ...]:
    """Return the memory of the processes that are alive, the largest first."""
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            rss_mb = process.memory_info().rss / _MIB
            if rss_mb:
                name = process_name(process.cmdline(), process.name())
                found.append(ProcessMemory(pid=pid, name=name, rss_mb=round(rss_mb, 1)))
        except psutil.Error:
            continue
    return tuple(sorted(found, key=lambda memory: -memory.rss_mb))


def cpu_s_of(pids: Iterable[int]) -> dict[int, float]:
    """Return the CPU seconds that each process which is alive has used so far."""
    found: dict[int, float] = {}
    for pid in pids:
        try:
            used = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        found[pid] = used.user + used.system
    return found


def process_name(command: list[str], executable: str) -> str:
    """Return what tells a process: the title it gave itself, its module or script, or its name."""
    first = command[0].strip() if command else ""
    if not first:
        return executable
    if "::" in first or " " in first:
        return first
    if not PurePath(first).name.startswith("python"):
        return PurePath(first).name
    words = iter(command[1:])
    for word in words:
        if word == "-c":
            return "python -c"
        if word == "-m":
            return f"python -m {next(words, '')}".strip()
        if not word.startswith("-"):
            return f"python {PurePath(word).name}"
    return PurePath(first).name


def kill_all(known: Iterable[int], before: frozenset[int]) -> frozenset[int]:
    """Kill the known processes and all descendants that were not there `before`, and reap them.

    Returns the ids of those that are still there after about two seconds.
    """
    left = frozenset(known)
    for _ in range(_KILL_ROUNDS):
        # A process killed last may have started another, and its orphans have moved to us.
        left = frozenset(pid for pid in left | (descendants() - before) if psutil.pid_exists(pid))
        if not left:
            break
        for pid in left:
            _kill(pid)
        time.sleep(_KILL_PAUSE_S)
        for pid in left:
            _reap(pid)
    return left


def _kill(pid: int) -> None:
    try:
        psutil.Process(pid).kill()
    except psutil.Error:
        return


def _reap(pid: int) -> None:
    """Collect a dead child's status, without which it would stay as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        # Not our child: its parent, or init, reaps it.
        return
