"""What tests ask of a runtime that writes texts."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from rayserve_platform.core.messages import Chunk, Generate
from rayserve_platform.core.runtime import Runtime
from rayserve_platform.core.stream import join


class Asked:
    """A runtime that has started."""

    def __init__(self, runtime: Runtime) -> None:
        self._asked = runtime

    async def ask(self, **request: Any) -> list[Chunk]:
        """Return all chunks of an answer, each list of them flattened."""
        async with contextlib.aclosing(
            self._asked.generate(Generate(model="m", **request))
        ) as answer:
            return [chunk async for chunks in answer for chunk in chunks]

    async def answer(self, **request: Any) -> Chunk:
        """Return an answer as one chunk, however it came."""
        return join(await self.ask(**request))

    def stream(self, **request: Any) -> contextlib.aclosing[AsyncGenerator[Sequence[Chunk], None]]:
        """Return the stream of an answer, to be left at any time."""
        return contextlib.aclosing(
            self._asked.generate(Generate(model="m", stream=True, **request))
        )
