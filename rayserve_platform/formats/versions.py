"""The versions of a model on disk, laid out as TensorFlow Serving's and OVMS's: MODEL/NUMBER/files.

A file, or a folder without numbered folders, is version 1.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.source import locate
from rayserve_platform.formats.weights import unusable

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size and time of change of each file: differs when any of them has been written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """A version as it lies there."""

    path: Path
    fingerprint: Fingerprint


def base_path(source: str) -> Path:
    """Return the file or folder that a source names: a path, file:///PATH or package://….

    Raises:
        PlatformError: INVALID_ARGUMENT for another scheme, or a package that has no such model.
    """
    scheme, mark, rest = source.partition("://")
    if not mark:
        return Path(source).expanduser().absolute()
    if scheme.lower() == "file":
        host, slash, path = rest.partition("/")
        if host in {"", "localhost"} and slash:
            return Path("/", unquote(path))
        raise _refused("a file URI names an absolute path: file:///PATH")
    if scheme.lower() == "package":
        return locate(source)
    raise _refused(f"'{scheme}://' is not supported; write a path, file:///PATH or package://…")


def _refused(reason: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, f"source: {reason}", param="source")


def scan(base: Path) -> dict[str, OnDisk]:
    """Return the versions of the model at `base`, by number.

    Raises:
        PlatformError: INVALID_ARGUMENT if there is nothing, or it can't be read.
    """
    try:
        if base.is_file():
            return {"1": _on_disk(base)}
        entries = [path for path in base.iterdir() if not path.name.startswith(".")]
        numbered = {
            str(int(path.name)): path
            for path in entries
            if path.name.isascii() and path.name.isdecimal() and int(path.name) and path.is_dir()
        }
        if numbered:
            return {number: _on_disk(path) for number, path in numbered.items()}
        return {"1": _on_disk(base)} if entries else {}
    except OSError as error:
        raise unusable("there is no such model, or its files can't be read") from error


def _on_disk(path: Path) -> OnDisk:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [(str(file.relative_to(path)), file.stat()) for file in files]
    return OnDisk(
        path=path, fingerprint=tuple((name, s.st_size, s.st_mtime_ns) for name, s in stats)
    )


def wanted(
    there: Mapping[str, OnDisk], *, latest: int | None, specific: Collection[int]
) -> list[str]:
    """Return the versions that a policy asks for, the highest first.

    Args:
        there: versions on disk.
        latest: how many of the highest; None for all of them.
        specific: these alone, where it names any.
    """
    numbers = sorted(there, key=int, reverse=True)
    if specific:
        return [number for number in numbers if int(number) in specific]
    return numbers[:latest]
