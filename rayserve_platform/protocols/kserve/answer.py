"""What both transports do with an inference: find the model, stream what it writes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from rayserve_platform.core.cards import Task
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.messages import Chunk, Generate
from rayserve_platform.core.tensors import Inference, Tensor, TensorSpec
from rayserve_platform.edge.observe import Record
from rayserve_platform.protocols.kserve import texts
from rayserve_platform.protocols.kserve.images import are_images
from rayserve_platform.protocols.kserve.tensors import MAX_TENSORS

P = ParamSpec("P")
R = TypeVar("R")
Spec = Callable[[str], TensorSpec | None]

THREAD_BYTES = 2**18
"""From here on decoding and encoding would hold the event loop for milliseconds."""

ITEM = 32
"""What an element of BYTES costs, as so many bytes."""


async def sized(size_bytes: int, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Make a call whose time grows with `size_bytes`: in a thread, where these are many."""
    if size_bytes < THREAD_BYTES:
        return call(*args, **kwargs)
    return await asyncio.to_thread(partial(call, *args, **kwargs))


def size_of(inference: Inference) -> int:
    """Return the bytes of an answer's tensors."""
    return sum(map(_bytes_of, inference.outputs))


def _bytes_of(tensor: Tensor) -> int:
    """Return a tensor's bytes; elements of BYTES have a weight besides, and are many enough by it.

    Counting a million of them would itself take long.
    """
    if tensor.datatype != "BYTES":
        return tensor.data.nbytes
    weight = ITEM * tensor.data.size
    return weight if weight >= THREAD_BYTES else weight + sum(map(len, tensor.data.flat))


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


async def find(
    catalog: Catalog, record: Record, name: str, version: str | None, *, anew: bool = False
) -> Found:
    """Return the model that a request names; it must name one.

    `anew`: its tensors matter, and so must be those of the version that there is now.
    """
    if anew:
        await catalog.renew(name)
    served = await catalog.resolve(name, version)
    record.model = served.card.id
    return Found(served=served, name=name, version=version or None)


def for_pictures(found: Found, inputs: Iterable[Any]) -> Spec | None:
    """Return a lookup among the model's inputs where some of the request's hold pictures.

    It is None where the card doesn't know the version, which may be new: the runtime decides.
    """
    candidates = [given for given in islice(inputs, MAX_TENSORS) if given.datatype == "BYTES"]
    if not candidates:
        return None
    try:
        specs = texts.version_of(found.served.card, found.version).inputs
    except PlatformError:
        return None
    known = {spec.name: spec for spec in specs}
    if any(are_images("BYTES", len(given.shape), known.get(given.name)) for given in candidates):
        return known.get
    return None


async def parts(found: Found, asked: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
    """Generate text bit by bit. Leaving it aborts it."""
    async with aclosing(found.served.runtime.generate(asked)) as source:
        async for chunks in source:
            yield chunks
