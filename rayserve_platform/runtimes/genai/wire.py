"""What the runtime and its engine's process say to each other, over a socket.

A frame is its length and a pickle. Both ends are this package in one version, and nobody else holds
the socket.
"""

import asyncio
import os
import pickle
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rayserve_platform.core.messages import Chunk, Generate, Tokenize, Tokens

LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a loaded model."""

    max_model_len: int
    chat: bool


@dataclass(frozen=True, slots=True)
class Call:
    """Something to do; what comes back bears its number."""

    number: int
    what: "Generate | Tokenize | Decode | Ping"


@dataclass(frozen=True, slots=True)
class Decode:
    """Turn token ids into text."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer between two steps."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for a call any more."""

    number: int


Item = Sequence[Chunk] | Tokens | str | Exception | None
"""A piece of an answer, what made the call fail, or its end."""
Items = list[tuple[int, Item]]
"""What has come of several calls, by their numbers."""


def frame(message: object) -> bytes:
    """Return a message as it goes over the socket."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(content)) + content


def frames(file: int) -> Iterator[Any]:
    """Yield the messages that come until the other end closes. Blocks."""
    with os.fdopen(file, "rb") as stream:
        while len(head := stream.read(LENGTH.size)) == LENGTH.size:
            yield pickle.loads(stream.read(*LENGTH.unpack(head)))  # noqa: S301  # see the module


async def read_frame(stream: asyncio.StreamReader) -> Any:
    """Return the next message.

    Raises:
        EOFError: when the other end has closed.
    """
    (length,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
    return pickle.loads(await stream.readexactly(length))  # noqa: S301  # see the module
