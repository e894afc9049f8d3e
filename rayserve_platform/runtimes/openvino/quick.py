"""Models so small that a change of threads costs more than they do.

They are computed in the event loop: at the end of each of its turns, all that came in it together.
What is larger than the largest batch goes to the threads, and so does what fails, to be told apart.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.futures import answer
from rayserve_platform.core.tensors import DTYPES, TensorSpec
from rayserve_platform.runtimes.openvino.lanes import (
    Arrays,
    Job,
    Lanes,
    Requester,
    length,
    together,
)

LIMIT_S = 0.0005
"""How long the largest batch may hold the event loop."""
TRIES = 50
"""The shortest of them counts: other processes may have the processor during most of them."""
SURE_TRIES = 5
"""So many are enough for what takes ten times as long."""


class Quick:
    """Behaves as the lanes that it is put before.

    Args:
        lanes: for what is too large, and for what fails.
        requester: used in the event loop alone.
        max_rows: as for `Lanes`.
    """

    def __init__(self, lanes: Lanes, requester: Requester, *, max_rows: int) -> None:
        self._lanes = lanes
        self._requester = requester
        self._max_rows = max_rows
        self._soon: list[Job] = []
        self._failed: set[asyncio.Task[None]] = set()

    async def run(self, inputs: Sequence[NDArray[Any]], outputs: tuple[int, ...]) -> Arrays:
        """Compute; raises as `Lanes.run`."""
        rows = length(inputs) if self._max_rows else 0
        if self._lanes.closed or (self._max_rows and not 0 < rows <= self._max_rows):
            return await self._lanes.run(inputs, outputs)
        self._lanes.check_room(len(self._soon))
        loop = asyncio.get_running_loop()
        job = Job(inputs=inputs, outputs=outputs, rows=rows, key=(), future=loop.create_future())
        if not self._soon:
            loop.call_soon(self._compute)
        self._soon.append(job)
        return await job.future

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return len(self._soon) + self._lanes.queued

    @property
    def dead(self) -> bool:
        """Whether every inference fails."""
        return self._lanes.dead

    def close(self) -> None:
        """As for `Lanes`; what came before is still computed by the event loop."""
        self._lanes.close()

    def _compute(self) -> None:
        waiting = [job for job in self._soon if not job.future.done()]
        batch, rows = waiting[:1], sum(job.rows for job in waiting[:1])
        for job in waiting[1:]:
            rows += job.rows
            if not self._max_rows or rows > self._max_rows:
                break
            batch.append(job)
        self._soon = waiting[len(batch) :]
        if self._soon:
            asyncio.get_running_loop().call_soon(self._compute)
        try:
            if len(batch) > 1:
                found = together(self._requester, batch)
                answer([(job.future, arrays) for job, arrays in zip(batch, found, strict=True)])
            elif batch:
                (job,) = batch
                answer([(job.future, self._requester(job.inputs, job.outputs))])
        except Exception:  # noqa: BLE001  # whatever the engine raises, the threads find it out
            for job in batch:
                task = asyncio.get_running_loop().create_task(self._again(job))
                self._failed.add(task)
                task.add_done_callback(self._failed.discard)

    async def _again(self, job: Job) -> None:
        try:
            found: Arrays | BaseException = await self._lanes.run(job.inputs, job.outputs)
        except Exception as error:  # noqa: BLE001  # the request's own to raise
            found = error
        answer([(job.future, found)])


def is_quick(request: Requester, inputs: Sequence[TensorSpec], *, max_rows: int) -> bool:
    """Say whether every request, or every batch of up to `max_rows`, is computed in no time."""
    batched = bool(max_rows)
    if any(-1 in spec.shape[batched:] or spec.datatype == "BYTES" for spec in inputs):
        return False
    return all(_seconds(request, inputs, rows) <= LIMIT_S for rows in {1, max_rows or 1})


def _seconds(request: Requester, inputs: Sequence[TensorSpec], rows: int) -> float:
    arrays = [
        np.zeros([rows if size == -1 else size for size in spec.shape], DTYPES[spec.datatype])
        for spec in inputs
    ]
    shortest = float("inf")
    for tried in range(1, TRIES + 1):
        began = time.perf_counter()
        try:
            request(arrays, (0,))
        except Exception:  # noqa: BLE001  # a model that can't compute zeros is not measured
            return float("inf")
        shortest = min(shortest, time.perf_counter() - began)
        if shortest <= LIMIT_S or (tried >= SURE_TRIES and shortest > 10 * LIMIT_S):
            break
    return shortest
