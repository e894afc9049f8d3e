"""What a GGUF file says of its model, without its weights (ggml-org/ggml, docs/gguf.md)."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from rayserve_platform.core.errors import Code, PlatformError

Value = bool | int | float | str

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""Those with 64-bit counts; version 1 is of 2023 and long gone."""
SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
STRING, ARRAY = 8, 9
LONGEST_KEY = 2**16 - 1
LONGEST_TEXT = 2**24
MOST_PAIRS = 2**16


def read_header(path: Path) -> dict[str, Value]:
    """Return the metadata of a GGUF file by key, lists left out.

    Raises:
        PlatformError: INVALID_ARGUMENT if it can't be read or is no GGUF file.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise _unreadable(path, "it does not begin with 'GGUF'")
            version, _, count = _take(file, "<IQQ")
            if version not in VERSIONS or count > MOST_PAIRS:
                raise _unreadable(path, f"its version {version} is not known")
            return dict(_pairs(file, count))
    except (OSError, OverflowError, struct.error, ValueError, KeyError) as error:
        raise _unreadable(path, "it can't be read, or ends too early") from error


def _pairs(file: BinaryIO, count: int) -> list[tuple[str, Value]]:
    found: list[tuple[str, Value]] = []
    for _ in range(count):
        key = _text(file, LONGEST_KEY)
        (kind,) = _take(file, "<I")
        if kind == ARRAY:
            _skip_list(file)
        elif kind == STRING:
            found.append((key, _text(file, LONGEST_TEXT)))
        else:
            found.append((key, _take(file, SCALARS[kind])[0]))
    return found


def _skip_list(file: BinaryIO) -> None:
    kind, count = _take(file, "<IQ")
    if kind in SCALARS:
        file.seek(struct.calcsize(SCALARS[kind]) * count, 1)
        return
    if kind != STRING:
        raise ValueError("a list of lists")
    for _ in range(count):
        (length,) = _take(file, "<Q")
        file.seek(length, 1)


def _text(file: BinaryIO, longest: int) -> str:
    (length,) = _take(file, "<Q")
    if length > longest:
        raise ValueError("a text without end")
    return file.read(length).decode()


def _take(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _unreadable(path: Path, reason: str) -> PlatformError:
    message = f"{path.name} is no GGUF file that can be served: {reason}"
    return PlatformError(Code.INVALID_ARGUMENT, message, param="source")
