"""Protobuf messages as bytes, field by field: the bench has nothing generated from a proto.

Format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Sequence

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


def field(number: int, value: int | str | bytes) -> bytes:
    """Return one field: an unsigned integer, a string, or (as bytes) a message."""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def repeated_strings(texts: Sequence[str]) -> bytes:
    """Return a message whose field 1 is these strings, be it repeated or (for one) not."""
    return b"".join(field(1, text) for text in texts)


def varints(*values: int) -> bytes:
    """Return the content of a packed repeated field of unsigned integers."""
    return b"".join(_varint(value) for value in values)


def fields(message: bytes) -> dict[int, int | bytes]:
    """Return the fields of a message by number, of a repeated one the last.

    Integers are unsigned; strings, messages and numbers of a fixed size stay bytes.

    Raises:
        ValueError: it is no protobuf message.
    """
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        size = _FIXED_BYTES.get(key & 7, 0)
        if key & 7 in (_VARINT, _BYTES):
            size, at = _read_varint(message, at)
        elif not size:
            raise ValueError(f"wire type {key & 7} is not used by proto3")
        if key & 7 == _VARINT:
            found[key >> 3] = size
            continue
        if at + size > len(message):
            raise ValueError("the message ends within a field")
        found[key >> 3] = message[at : at + size]
        at += size
    return found


def _varint(value: int) -> bytes:
    """Return an unsigned integer as protobuf writes it: seven bits a byte, the lowest first."""
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the integer that starts there, and where the next thing starts."""
    value = shift = 0
    while at < len(message):
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
        shift += 7
    raise ValueError("the message ends within an integer")
