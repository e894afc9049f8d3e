"""Arrays from what came over the wire, and back; no transport, no model.

Nothing is allocated by what a shape claims: the data that came is counted first. Sources: Open
Inference Protocol (tensor data) and its binary tensor data extension: values in row-major order,
little-endian, BOOL in one byte, each element of BYTES after its length in four.
"""

import reprlib
import struct
import sys
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import DTYPES, Tensor

assert sys.byteorder == "little"

Buffer = bytes | memoryview

MAX_RANK = 32
MAX_TENSORS = 1024
"""Of a request's inputs, and of its outputs: each costs more than its values may."""
BRIEF = reprlib.Repr()
"""Writes a caller's value in bounded time and depth: `repr` fails on lists a thousand deep."""
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother = 3, 200, 200
LENGTH = struct.Struct("<I")
KINDS: dict[str, tuple[frozenset[type], str]] = {
    **dict.fromkeys(DTYPES, (frozenset({int}), "whole numbers")),
    **dict.fromkeys(("FP16", "FP32", "FP64", "BF16"), (frozenset({int, float}), "numbers")),
    "BOOL": (frozenset({bool}), "true or false"),
    "BYTES": (frozenset({str}), "strings"),
}
"""What the JSON values of a datatype may be."""


def invalid(message: str, param: str = "inputs") -> PlatformError:
    """Return the refusal of a request."""
    return PlatformError(Code.INVALID_ARGUMENT, message, param=param)


def shown(name: str) -> str:
    """Return a caller's text as a message may carry it."""
    return name if len(name) <= 200 else f"{name[:200]}…"


def written(value: Any) -> str:
    """Return a caller's value, of whatever type, as a message may carry it."""
    return BRIEF.repr(value)


def check_count(count: int, where: str) -> None:
    """Refuse more tensors than any model has; `where` says whether these are inputs or outputs."""
    if count > MAX_TENSORS:
        raise invalid(f"'{where}' has {count} tensors; the limit is {MAX_TENSORS}.", where)


def check_type(name: str, datatype: str) -> None:
    """Refuse what is no datatype."""
    if datatype not in DTYPES:
        raise invalid(
            f"Input '{shown(name)}': unknown datatype '{shown(datatype)}'; "
            f"expected one of {', '.join(DTYPES)}."
        )


def check_shape(name: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """Return a tensor's shape, if it is one."""
    if len(shape) > MAX_RANK:
        raise invalid(
            f"Input '{shown(name)}': 'shape' has {len(shape)} dimensions; the limit is {MAX_RANK}."
        )
    for size in shape:
        if type(size) is not int or not 0 <= size < 2**63:
            raise invalid(
                f"Input '{shown(name)}': 'shape' must hold whole numbers from 0 to 2^63-1, "
                f"got {written(size)}."
            )
    return tuple(shape)


def from_values(name: str, datatype: str, shape: tuple[int, ...], data: list[Any]) -> NDArray[Any]:
    """Make an array of JSON values, flat or nested in any regular way, in row-major order."""
    flat = _flat(name, data)
    if len(flat) != prod(shape):
        raise _miscounted(name, shape, f"{prod(shape)} values", str(len(flat)))
    allowed, what = KINDS[datatype]
    if not allowed.issuperset(map(type, flat)):
        wrong = next(value for value in flat if type(value) not in allowed)
        raise invalid(
            f"Input '{shown(name)}': {datatype} data must be {what}, got {written(wrong)}."
        )
    return _shaped(name, _array(name, datatype, flat), shape)


def _flat(name: str, data: list[Any]) -> list[Any]:
    while data and type(data[0]) is list:
        if set(map(type, data)) != {list} or len(set(map(len, data))) > 1:
            raise invalid(f"Input '{shown(name)}': the rows of 'data' differ in length.")
        data = list(chain.from_iterable(data))
    return data


def _array(name: str, datatype: str, flat: list[Any]) -> NDArray[Any]:
    if datatype == "BYTES":
        return objects([text.encode() for text in flat])
    try:
        with np.errstate(over="raise"):
            if datatype == "BF16":
                return _to_bf16(np.array(flat, np.float32))
            return np.array(flat, DTYPES[datatype])
    except (OverflowError, FloatingPointError):
        raise invalid(
            f"Input '{shown(name)}': a value is out of the range of {datatype}."
        ) from None


def _to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to nearest, ties to even; the upper half of a float32 is a BF16."""
    bits = values.view(np.uint32).astype(np.uint64)
    halves = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    if np.any((halves & 0x7F80) == 0x7F80):
        raise FloatingPointError
    return halves


def from_items(name: str, shape: tuple[int, ...], items: list[bytes]) -> NDArray[Any]:
    """Make an array of the elements of BYTES."""
    if len(items) != prod(shape):
        raise _miscounted(name, shape, f"{prod(shape)} elements", str(len(items)))
    return _shaped(name, objects(items), shape)


def objects(items: list[bytes]) -> NDArray[np.object_]:
    """Return a flat array of `bytes`, which numpy would take for fixed-length strings."""
    made = np.empty(len(items), np.object_)
    made[:] = items
    return made


def from_bytes(name: str, datatype: str, shape: tuple[int, ...], data: Buffer) -> NDArray[Any]:
    """Make an array of raw data. It shares the memory of `data` where that is aligned for it."""
    if datatype == "BYTES":
        return _shaped(name, objects(unpack(name, shape, data)), shape)
    dtype = DTYPES[datatype]
    if len(data) != prod(shape) * dtype.itemsize:
        expected = f"{prod(shape) * dtype.itemsize} bytes of {datatype}"
        raise _miscounted(name, shape, expected, str(len(data)))
    array = np.frombuffer(data, np.uint8 if datatype == "BOOL" else dtype)
    if datatype == "BOOL":
        array = array != 0  # a numpy boolean of any other byte than 0 and 1 misbehaves
    elif not array.flags.aligned:
        array = array.copy()
    return _shaped(name, array, shape)


def unpack(name: str, shape: tuple[int, ...], data: Buffer) -> list[bytes]:
    """Return the elements of BYTES, each of which stands after its length."""
    count, place, end = prod(shape), 0, len(data)
    if count * LENGTH.size > end:
        expected = f"{count} elements of at least {LENGTH.size} bytes"
        raise _miscounted(name, shape, expected, f"{end} bytes")
    items: list[bytes] = []
    while place < end and len(items) < count:
        start = place + LENGTH.size
        if start > end:
            raise invalid(f"Input '{shown(name)}': the data ends within an element's length.")
        place = start + LENGTH.unpack_from(data, start - LENGTH.size)[0]
        if place > end:
            raise invalid(
                f"Input '{shown(name)}': element {len(items)} should have {place - start} bytes, "
                f"but only {end - start} are left."
            )
        items.append(bytes(data[start:place]))
    if len(items) != count:
        raise _miscounted(name, shape, f"{count} elements", str(len(items)))
    if place != end:
        raise invalid(
            f"Input '{shown(name)}': {end - place} bytes are left over behind {count} elements."
        )
    return items


def _shaped(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return array.reshape(shape)
    except ValueError:  # without an element, the other dimensions may still be absurd
        raise invalid(f"Input '{shown(name)}': the shape {list(shape)} is too large.") from None


def _miscounted(name: str, shape: tuple[int, ...], expected: str, got: str) -> PlatformError:
    return invalid(
        f"Input '{shown(name)}': expected {expected} for shape {list(shape)}, got {got}."
    )


def to_values(tensor: Tensor) -> Any:
    """Return a tensor's values, flat, as orjson writes them; what is not finite becomes null.

    Raises:
        PlatformError: INVALID_ARGUMENT for bytes that are no text, which JSON can't carry.
    """
    if tensor.datatype == "BYTES":
        try:
            return [bytes(item).decode() for item in tensor.data.ravel()]
        except UnicodeDecodeError:
            raise invalid(
                f"Output '{tensor.name}' holds bytes that are no UTF-8 text; ask for it with the "
                "parameter 'binary_data'.",
                "outputs",
            ) from None
    flat = np.ascontiguousarray(tensor.data).ravel()
    if tensor.datatype == "BF16":
        return (flat.astype(np.uint32) << 16).view(np.float32)
    return flat


def to_bytes(tensor: Tensor) -> Buffer:
    """Return a tensor's raw data, in its own memory where it is contiguous."""
    if tensor.datatype == "BYTES":
        return pack(tensor.data.ravel())
    return np.ascontiguousarray(tensor.data).data


def pack(items: Sequence[bytes] | NDArray[np.object_]) -> bytes:
    """Put each element behind its length."""
    return b"".join(part for item in items for part in (LENGTH.pack(len(item)), item))
