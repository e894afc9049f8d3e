"""Dynamic batching across requests, by tokens.

There is no timer: what comes in while the engine is busy makes the next batch. All models of a
replica share one queue, since they share its threads. Texts go from a tokenizer thread to a lane's
thread and back, without a stop at the event loop in between: on two cores that is worth 5 %. Short
texts are not worth a change of threads: those that come in one turn of the event loop are tokenized
at its end, which is worth 8 % of the requests of one client and 3 % of those of 32.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from rayserve_platform.core.errors import engine_unavailable, overloaded
from rayserve_platform.core.futures import answer_from_thread
from rayserve_platform.runtimes.embedding.backend import Backend, Result
from rayserve_platform.runtimes.embedding.plan import together

log = logging.getLogger("rayserve.embedding")

LANE_TOKENS = 96
"""Least work that is worth a lane of its own. With all-MiniLM-L6-v2 on two cores, two lanes of four
sentences are as fast as one call of eight on both cores, and of more sentences faster by 7 %."""

TOKENIZER_THREADS = 2
"""A tokenizer takes 35 µs for a sentence; a second thread keeps a long list from holding it up."""

FAILURES_LIMIT = 3
"""Batches in a row that fail before the engine counts as dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One text, or one pair of texts, as tokens. `segments` may be empty: all zeros."""

    ids: Sequence[int]
    segments: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The rows of one request, and their results [rows, …]."""

    rows: list[Row]
    results: Result


@dataclass(slots=True, eq=False, kw_only=True)
class _Job:
    """One request. Its future belongs to the event loop, all else to whoever holds the lock."""

    backend: Backend
    pad_id: int
    future: asyncio.Future[Done]
    rows: list[Row] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    left: int = 0
    dropped: bool = False


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
        self._changed = threading.Condition()
        self._waiting: list[_Entry] = []
        self._queued_tokens = 0
        self._running = 0
        self._alone = False
        self._failures = 0
        self._brief: list[tuple[_Job, Callable[[], list[Row]]]] = []
        self._closed = False
        self._preparing = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix="tokenizer")
        self._lanes = [
            threading.Thread(target=self._work, name=f"embedding-{i}", daemon=True)
            for i in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    async def run(
        self,
        backend: Backend,
        prepare: Callable[[], list[Row]],
        *,
        pad_id: int,
        brief: bool = False,
    ) -> Done:
        """Compute the rows that `prepare` makes: in a tokenizer's thread, or here if it is `brief`.

        Cancelling takes what still waits out of the queue.

        Raises:
            PlatformError: RESOURCE_EXHAUSTED, at once, when too many tokens wait; whatever
                `prepare` raises.
        """
        if self._queued_tokens >= self._max_queued_tokens:
            raise overloaded(self._retry_after_s)
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        job = _Job(backend=backend, pad_id=pad_id, future=future)
        if not brief:
            self._preparing.submit(self._prepare, job, prepare)
        else:
            if not self._brief:
                future.get_loop().call_soon(self._prepare_brief)
            self._brief.append((job, prepare))
        try:
            return await future
        except asyncio.CancelledError:
            self._drop(job)
            raise

    async def prepared(self, work: Callable[[], object]) -> object:
        """Run what only a tokenizer is needed for in a tokenizer's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, work)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for their turn."""
        return self._queued_tokens

    def check(self) -> None:
        """Raise when the engine fails whatever it is given."""
        if self._closed or self._failures >= FAILURES_LIMIT:
            raise engine_unavailable()

    def close(self) -> None:
        """Wait for what runs, and refuse what waits."""
        with self._changed:
            self._closed = True
            jobs = {entry.job for entry in self._waiting}
            self._waiting.clear()
            self._queued_tokens = 0
            self._changed.notify_all()
        answer_from_thread([(job.future, engine_unavailable()) for job in jobs])
        self._preparing.shutdown()
        for lane in self._lanes:
            lane.join()

    def _prepare_brief(self) -> None:
        """Queue all that came in this turn of the event loop before a lane looks."""
        brief, self._brief = self._brief, []
        with self._changed:
            for job, prepare in brief:
                if not job.future.done():  # it may have been given up since
                    self._prepare(job, prepare)

    def _prepare(self, job: _Job, prepare: Callable[[], list[Row]]) -> None:
        try:
            if not job.dropped:
                self._put(job, prepare())
        except BaseException as error:  # noqa: BLE001  # whoever asked is told, in another thread
            answer_from_thread([(job.future, error)])

    def _put(self, job: _Job, rows: list[Row]) -> None:
        """Queue the rows of a job; refuse them if too many tokens wait already."""
        tokens = sum(len(row.ids) for row in rows)
        with self._changed:
            if self._closed:
                raise engine_unavailable()
            if self._waiting and self._queued_tokens + tokens > self._max_queued_tokens:
                raise overloaded(self._retry_after_s)
            if job.dropped:
                return
            job.rows, job.left = rows, len(rows)
            job.results = [np.empty(0, np.float32)] * len(rows)
            self._waiting += [_Entry(row=row, job=job, place=i) for i, row in enumerate(rows)]
            self._queued_tokens += tokens
            self._changed.notify_all()
        if not rows:
            done = Done(rows, np.zeros((0, 1), np.float32))
            answer_from_thread([(job.future, done)])

    def _drop(self, job: _Job) -> None:
        with self._changed:
            job.dropped = True
            self._take_out([entry for entry in self._waiting if entry.job is job])

    def _take_out(self, entries: Sequence[_Entry]) -> None:
        taken = set(entries)
        self._waiting = [entry for entry in self._waiting if entry not in taken]
        self._queued_tokens -= sum(len(entry.row.ids) for entry in entries)

    def _work(self) -> None:
        """Compute batch after batch, in a thread of its own."""
        while True:
            with self._changed:
                while not (batch := self._next()):
                    if self._closed:
                        return
                    self._changed.wait()
                self._running += 1
                alone = self._alone
            answer: Result | BaseException
            try:
                answer = _call(batch, alone=alone)
            except BaseException as error:  # whoever waits for it is told; the lane must go on
                log.exception("a batch of %d failed", len(batch))
                answer = error
            self._finish(batch, answer)

    def _next(self) -> list[_Entry]:
        """Take the next batch out of the queue; empty if there is none, or no lane for it."""
        if not self._waiting or self._alone:
            return []
        oldest = self._waiting[0].job.backend
        if self._running and self._running >= oldest.lanes:
            return []
        ours = [entry for entry in self._waiting if entry.job.backend is oldest]
        lengths = [len(entry.row.ids) for entry in ours]
        free = oldest.lanes - self._running
        share = -(-sum(lengths) // max(1, free))
        split = oldest.lanes > 1 and len(ours) >= free and share >= LANE_TOKENS
        self._alone = not self._running and not split
        limit = self._max_batch_tokens
        if not self._alone:
            limit = min(limit, max(share, LANE_TOKENS))
        chosen = together(lengths, call_tokens=oldest.call_tokens, limit=limit)
        batch = [ours[i] for i in chosen]
        self._take_out(batch)
        return batch

    def _finish(self, batch: list[_Entry], answer: Result | BaseException) -> None:
        """Hand the results out; a lane is free again."""
        ready: list[_Job] = []
        failed = isinstance(answer, BaseException)
        with self._changed:
            self._running -= 1
            if self._alone:
                self._alone = False
                self._changed.notify_all()
            self._failures = self._failures + 1 if failed else 0
            if failed:
                jobs = {entry.job for entry in batch}
                self._take_out([entry for entry in self._waiting if entry.job in jobs])
            for index, entry in enumerate(batch):
                if not isinstance(answer, BaseException):
                    entry.job.results[entry.place] = answer[index]
                entry.job.left -= 1
                if failed or not entry.job.left:
                    ready.append(entry.job)
        if isinstance(answer, BaseException):
            answer_from_thread([(job.future, answer) for job in ready])
        else:
            answer_from_thread([(j.future, Done(j.rows, np.stack(j.results))) for j in ready])


def _call(batch: list[_Entry], *, alone: bool) -> Result:
    """Pad the rows to one length and compute them."""
    width = max(len(entry.row.ids) for entry in batch)
    job = batch[0].job
    ids = np.full((len(batch), width), job.pad_id, np.int64)
    mask = np.zeros_like(ids)
    segments = np.zeros_like(ids)
    for index, entry in enumerate(batch):
        length = len(entry.row.ids)
        ids[index, :length] = entry.row.ids
        mask[index, :length] = 1
        if entry.row.segments:
            segments[index, :length] = entry.row.segments
    return job.backend.run(ids, mask, segments, alone=alone)
