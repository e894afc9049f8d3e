"""Keys in a file of this machine: whole or not at all, one writer at a time.

A new file is its owner's alone. One that is changed stays readable for whom it was: a server that
can't read it any more would go on with the keys that it knows, also those that have been revoked.
"""

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from rayserve_platform.edge.keys.change import KeyFault
from rayserve_platform.edge.keys.document import (
    new_pepper,
    pepper_of_environment,
    read_keys,
    read_pepper,
    write_keys,
)
from rayserve_platform.settings.keys import KeyFile

Result = TypeVar("Result")
Pepper = Callable[[], bytes]
Verb = Callable[[KeyFile, Pepper], tuple[KeyFile, Result]]
"""Makes a new file of keys from the old one; asks for the pepper only where it needs it."""

LOCK_WAIT_S = 10.0


class KeysInFile:
    """A file of keys and the file of its pepper.

    Args:
        path: of the keys. A symbolic link is followed, never replaced.
        pepper: the pepper's own file; None: `<path>.pepper`. The environment's pepper goes first.
    """

    def __init__(self, path: Path, pepper: Path | None = None) -> None:
        self._path = Path(os.path.realpath(path))
        self._pepper_path = pepper or pepper_path(path)

    def __str__(self) -> str:
        return str(self._path)

    def read(self) -> KeyFile:
        """Return the keys; none where there is no file yet.

        Raises:
            KeyFault: when it can't be read.
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return KeyFile()
        except OSError as error:
            raise _unable("read", self._path, error) from None
        try:
            return read_keys(raw)
        except KeyFault as fault:
            raise KeyFault(f"{self._path}: {fault}") from None

    def update(self, verb: Verb[Result]) -> Result:
        """Do something to the keys while nobody else does.

        Raises:
            KeyFault: when the files can't be read or written, or another writer holds them.
        """
        if not self._path.parent.is_dir():
            raise KeyFault(f"can't write {self._path}: there is no directory {self._path.parent}")
        lock = FileLock(self._path.with_name(f".{self._path.name}.lock"), mode=0o600)
        try:
            with lock.acquire(timeout=LOCK_WAIT_S):
                before = self.read()
                after, result = verb(before, lambda: self._pepper(before))
                if after != before:
                    replace(self._path, write_keys(after))
                return result
        except Timeout:
            raise KeyFault(f"{self._path}: another process is changing it") from None
        except OSError as error:
            raise _unable("write", self._path, error) from None

    def _pepper(self, file: KeyFile) -> bytes:
        found = pepper_of_environment()
        if found is not None:
            return found
        if not file.keys:
            # Only while no key depends on it: a new pepper would make all of them unknown.
            with suppress(FileExistsError):
                write_new(self._pepper_path, new_pepper() + b"\n")
        return read_pepper_file(self._pepper_path)


def pepper_path(path: Path) -> Path:
    """Return where the pepper of a file of keys lies, unless something else is said."""
    return path.with_name(f"{path.name}.pepper")


def read_pepper_file(path: Path) -> bytes:
    """Return the pepper in a file.

    Raises:
        KeyFault: when it can't be read.
    """
    try:
        return read_pepper(path.read_bytes())
    except OSError as error:
        raise _unable("read the pepper in", path, error) from None
    except KeyFault as fault:
        raise KeyFault(f"{path}: {fault}") from None


def replace(path: Path, content: bytes) -> None:
    """Put new content under a name at once: readers see the old or the new, never a part."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_new(partial, content, path.stat() if path.exists() else None)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    # The new name has to reach the disk as well.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_new(path: Path, content: bytes, like: os.stat_result | None = None) -> None:
    """Write a file that is not there yet, readable for its owner alone from its first moment.

    In the end it has owner and mode of the one that it is to be `like`.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        # The umask can only take away; what it took is given back.
        os.fchmod(file.fileno(), 0o600)
        if like is not None:
            _give(file.fileno(), like)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _give(descriptor: int, like: os.stat_result) -> None:
    try:
        os.fchown(descriptor, like.st_uid, like.st_gid)
    except PermissionError:
        raise KeyFault(
            "only the keys' owner or root can change them: the file would become another owner's"
        ) from None
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode))


def _unable(what: str, path: Path, error: OSError) -> KeyFault:
    return KeyFault(f"can't {what} {path}: {os.strerror(error.errno or 0)}")
