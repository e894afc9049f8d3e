"""What both transports do with an inference: find the model, stream what it writes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from rayserve_platform.core.catalog import Catalog, Served
from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.messages import Chunk, Generate, Task
from rayserve_platform.core.tensors import Inference, TensorSpec
from rayserve_platform.edge.observe import Record
from rayserve_platform.protocols.kserve import texts

P = ParamSpec("P")
R = TypeVar("R")

THREAD_BYTES = 2**18
"""From here on decoding and encoding would hold the event loop for milliseconds."""


async def sized(size_bytes: int, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Make a call whose time grows with `size_bytes`: in a thread, where these are many."""
    if size_bytes < THREAD_BYTES:
        return call(*args, **kwargs)
    return await asyncio.to_thread(partial(call, *args, **kwargs))


def size_of(inference: Inference) -> int:
    """Return the bytes of an answer's tensors."""
    return sum(tensor.data.nbytes for tensor in inference.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model as a request names it."""

    served: Served
    name: str
    version: str | None

    @property
    def generates(self) -> bool:
        """Whether it writes text, bit by bit."""
        tasks = self.served.card.tasks
        return Task.GENERATE in tasks and Task.INFER not in tasks


async def find(catalog: Catalog, record: Record, name: str, version: str | None) -> Found:
    """Return the model that a request names; it must name one."""
    served = await catalog.resolve(name)
    record.model = served.card.id
    return Found(served=served, name=name, version=version or None)


def spec_of(found: Found) -> Callable[[str], TensorSpec | None]:
    """Return a lookup among the model's inputs.

    It finds none where the card doesn't know the version, which may be new: the runtime decides.
    """
    try:
        specs = texts.version_of(found.served.card, found.version).inputs
    except PlatformError:
        specs = ()
    return lambda name: next((spec for spec in specs if spec.name == name), None)


async def parts(found: Found, asked: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
    """Generate text bit by bit. Leaving it aborts it."""
    async with aclosing(found.served.runtime.generate(asked)) as source:
        async for chunks in source:
            yield chunks
