"""Dynamic batching across requests, by tokens.

There is no timer: what comes in while the engine is busy makes the next batch. All models of a
replica share one queue, since they share its threads.
"""

import asyncio
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.embedding.backend import Backend, Result
from rayserve_platform.runtimes.embedding.plan import together

LANE_TOKENS = 96
"""Least work that is worth a lane of its own. With all-MiniLM-L6-v2 on two cores, two lanes of four
sentences are as fast as one call of eight on both cores, and of more sentences faster by 7 %."""

FAILURES_LIMIT = 3
"""Batches in a row that fail before the engine counts as dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One text, or one pair of texts, as tokens. `segments` may be empty: all zeros."""

    ids: Sequence[int]
    segments: Sequence[int] = ()


@dataclass(slots=True, eq=False, kw_only=True)
class _Job:
    """The rows of one request on one model."""

    backend: Backend
    pad_id: int
    done: asyncio.Future[None]
    left: int
    results: list[Result] = field(default_factory=list)


@dataclass(slots=True, eq=False, kw_only=True)
class _Entry:
    row: Row
    job: _Job
    place: int


class Batcher:
    """Runs rows of tokens on backends, several requests in one batch.

    Args:
        max_batch_tokens: most tokens in a batch, padding included.
        max_queued_tokens: most tokens that wait.
        retry_after_s: what a refused request is told.
        lanes: threads that call backends.
    """

    def __init__(
        self, *, max_batch_tokens: int, max_queued_tokens: int, retry_after_s: float, lanes: int
    ) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._max_queued_tokens = max_queued_tokens
        self._retry_after_s = retry_after_s
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="embedding")
        self._waiting: list[_Entry] = []
        self._running = 0
        self._alone = False
        self._failures = 0

    async def run(self, backend: Backend, rows: Sequence[Row], *, pad_id: int) -> Result:
        """Return one result a row: [rows, …]. Cancelling takes what still waits out of the queue.

        Raises:
            PlatformError: RESOURCE_EXHAUSTED, at once, when too many tokens wait.
        """
        waiting = self.queued_tokens
        if waiting and waiting + sum(len(row.ids) for row in rows) > self._max_queued_tokens:
            raise PlatformError(
                Code.RESOURCE_EXHAUSTED, "Model is overloaded", retry_after_s=self._retry_after_s
            )
        done = asyncio.get_running_loop().create_future()
        job = _Job(backend=backend, pad_id=pad_id, done=done, left=len(rows))
        job.results = [np.empty(0, np.float32)] * len(rows)
        self._waiting += [_Entry(row=row, job=job, place=i) for i, row in enumerate(rows)]
        self._start_what_can()
        try:
            await done
        except BaseException:
            self._waiting = [entry for entry in self._waiting if entry.job is not job]
            raise
        return np.stack(job.results)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for their turn."""
        return sum(len(entry.row.ids) for entry in self._waiting)

    def check(self) -> None:
        """Raise when the engine fails whatever it is given."""
        if self._failures >= FAILURES_LIMIT:
            raise PlatformError(Code.UNAVAILABLE, "The model's engine is not available.")

    def close(self) -> None:
        """Wait for what runs, and drop what waits."""
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start_what_can(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and (batch := self._take()):
            self._running += 1
            call = functools.partial(_call, batch, alone=self._alone)
            running = loop.run_in_executor(self._pool, call)
            running.add_done_callback(functools.partial(self._finish, batch))

    def _take(self) -> list[_Entry] | None:
        """Take the next batch out of the queue, or None if the engine has its hands full."""
        oldest = self._waiting[0].job.backend
        if self._alone or (self._running and self._running >= oldest.lanes):
            return None
        places = [i for i, entry in enumerate(self._waiting) if entry.job.backend is oldest]
        lengths = [len(self._waiting[i].row.ids) for i in places]
        free = oldest.lanes - self._running
        share = -(-sum(lengths) // max(1, free))
        split = oldest.lanes > 1 and len(places) >= free and share >= LANE_TOKENS
        self._alone = not self._running and not split
        limit = self._max_batch_tokens
        if not self._alone:
            limit = min(limit, max(share, LANE_TOKENS))
        chosen = together(lengths, call_tokens=oldest.call_tokens, limit=limit)
        taken = {places[i] for i in chosen}
        batch = [self._waiting[i] for i in sorted(taken)]
        self._waiting = [entry for i, entry in enumerate(self._waiting) if i not in taken]
        return batch

    def _finish(self, batch: list[_Entry], running: asyncio.Future[Result]) -> None:
        """Hand the results out and go on with what waits."""
        self._running -= 1
        self._alone = False
        error = None if running.cancelled() else running.exception()
        if running.cancelled():
            error = PlatformError(Code.UNAVAILABLE, "The model's engine has been stopped.")
        self._failures = self._failures + 1 if error else 0
        for index, entry in enumerate(batch):
            job = entry.job
            if job.done.done():
                continue
            if error is not None:
                job.done.set_exception(error)
                continue
            job.results[entry.place] = running.result()[index]
            job.left -= 1
            if not job.left:
                job.done.set_result(None)
        self._start_what_can()


def _call(batch: list[_Entry], *, alone: bool) -> Result:
    """Pad the rows to one length and compute them; runs in a thread."""
    width = max(len(entry.row.ids) for entry in batch)
    job = batch[0].job
    ids = np.full((len(batch), width), job.pad_id, np.int64)
    mask = np.zeros_like(ids)
    segments = np.zeros_like(ids)
    for index, entry in enumerate(batch):
        length = len(entry.row.ids)
        ids[index, :length] = entry.row.ids
        mask[index, :length] = 1
        segments[index, : len(entry.row.segments)] = entry.row.segments
    return job.backend.run(ids, mask, segments, alone=alone)
