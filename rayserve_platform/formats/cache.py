"""Directories that are made once and then shared by every process of a machine.

An entry appears under its name only when it is whole: it is made in a folder beside it, under a
lock, and renamed. Whatever the moment of an interruption, the next caller starts over.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.progress import Report

WAIT_LIMIT_S = 1800.0
"""How long to wait for another process that makes the same entry; large models take minutes."""


def cache_root() -> Path:
    """Return `$RAYSERVE_CACHE`, else `$XDG_CACHE_HOME/rayserve`, else `~/.cache/rayserve`.

    A relative XDG_CACHE_HOME counts as unset (XDG Base Directory Specification 0.8, "Basics").
    """
    own = os.environ.get("RAYSERVE_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():
        return shared / "rayserve"
    return Path("~/.cache/rayserve").expanduser()


def made_once(root: Path, name: str, make: Callable[[Path], None], *, report: Report) -> Path:
    """Return the directory `root/name`, calling `make` with an empty directory if it isn't there.

    Of several processes one makes the entry; the others report that they wait, and get the same.

    Args:
        root: the cache; created if need be.
        name: the entry's name, without characters that mean something to `glob`.
        make: fills the directory it is given. What it raises is raised here.
        report: told when this process has to wait for another one.

    Raises:
        PlatformError: UNAVAILABLE if the cache can't be written, or another process takes longer
            than `WAIT_LIMIT_S`.
    """
    entry = root / name
    if entry.is_dir():
        return entry
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _held(root / f".{name}.lock", report):
            if not entry.is_dir():
                _make(entry, make)
    except OSError as error:
        message = (
            f"the model cache {root} can't be written ({os.strerror(error.errno or 0)}); "
            "set RAYSERVE_CACHE to a folder with write permission and enough room"
        )
        raise PlatformError(Code.UNAVAILABLE, message) from error
    return entry


@contextmanager
def _held(path: Path, report: Report) -> Iterator[None]:
    """Hold the lock file `path`, which the system lets go when a process ends, however it ends."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report("waiting for another process that makes the same model", 0.0)
        try:
            lock.acquire(timeout=WAIT_LIMIT_S)
        except Timeout as error:
            message = f"another process has been making this model for over {WAIT_LIMIT_S:.0f} s"
            raise PlatformError(Code.UNAVAILABLE, message) from error
    try:
        yield
    finally:
        lock.release()


def _make(entry: Path, make: Callable[[Path], None]) -> None:
    for leftover in entry.parent.glob(f".{entry.name}.partial-*"):
        shutil.rmtree(leftover)
    partial = entry.parent / f".{entry.name}.partial-{secrets.token_hex(4)}"
    partial.mkdir()
    try:
        make(partial)
        settle(partial)
        partial.rename(entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def settle(directory: Path) -> None:
    """Give every file the mode the umask allows, and write it to the disk before its name is.

    safetensors makes its files readable by their owner alone, which shuts out a server that runs
    as another user.
    """
    probe = directory / ".mode"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in directory.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb") as file:
                os.fsync(file.fileno())
