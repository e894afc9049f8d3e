"""A file of keys as a source that is looked at again and again.

It may be replaced under its name, as `rayserve keys` does, written in place, or be the target of
links that are changed, as the kubelet does with a mounted Secret: each shows in what its name leads
to.
"""

import asyncio
import os
from pathlib import Path

from rayserve_platform.edge.keys.change import KeyFault
from rayserve_platform.edge.keys.document import pepper_of_environment
from rayserve_platform.edge.keys.file import pepper_path, read_pepper_file

LOOK_S = 0.5
"""Well below the two seconds within which a revocation has to count."""

Signature = tuple[tuple[int, ...] | None, ...]


class FollowedFile:
    """Keys in a file, their pepper in the environment or in another.

    Args:
        pepper: the pepper's own file; None: `<path>.pepper`.
    """

    def __init__(self, path: Path, pepper: Path | None = None, *, look_s: float = LOOK_S) -> None:
        self._path = path
        self._pepper_path = pepper or pepper_path(path)
        self._look_s = look_s
        self._seen: Signature = ()

    async def read(self) -> tuple[bytes, bytes]:
        """Return keys and pepper; raises `KeyFault`."""
        return await asyncio.to_thread(self._read)

    async def changed(self) -> None:
        """Wait until a name leads to something else."""
        while True:
            await asyncio.sleep(self._look_s)
            if await asyncio.to_thread(self._signature) != self._seen:
                return

    async def close(self) -> None:
        """Do nothing: no file is held open."""

    def _read(self) -> tuple[bytes, bytes]:
        # Before the content: what is written meanwhile is seen the next time.
        self._seen = self._signature()
        try:
            keys = self._path.read_bytes()
        except OSError as error:
            raise KeyFault(f"can't read {self._path}: {os.strerror(error.errno or 0)}") from None
        return keys, pepper_of_environment() or read_pepper_file(self._pepper_path)

    def _signature(self) -> Signature:
        return (_look(self._path), _look(self._pepper_path))


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
