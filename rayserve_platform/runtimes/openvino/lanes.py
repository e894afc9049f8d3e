"""Threads that compute: requests of one version of a model wait here and are computed together.

Each version has its own, so that it can finish its requests when it is replaced.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError, overloaded
from rayserve_platform.core.futures import answer_from_thread

log = logging.getLogger("rayserve.openvino")

Arrays = list[NDArray[Any]]

FAILURES_LIMIT = 3
"""Inferences in a row that fail before the version counts as dead."""


class Requester(Protocol):
    """Computes one set of inputs; used by one thread at a time."""

    def __call__(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[int], /) -> Arrays:
        """Return the outputs at these places; blocks."""
        ...


class Judge(Protocol):
    """Tells a request's failure from the engine's; used by several threads."""

    def learn(self, arrays: Sequence[NDArray[Any]], /) -> None:
        """Hear of inputs that were computed."""
        ...

    def blame(
        self, requester: Requester, arrays: Sequence[NDArray[Any]], /
    ) -> PlatformError | None:
        """Say what is wrong with inputs that failed, or None if they aren't at fault; blocks."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One request: its arrays in the model's order, and the places of the outputs it wants.

    Args:
        rows: length of the first axis of every input; 0 for a request that goes alone.
        future: belongs to the event loop.
    """

    inputs: Sequence[NDArray[Any]]
    outputs: tuple[int, ...]
    rows: int
    key: tuple[tuple[int, ...], ...]
    future: asyncio.Future[Arrays]
    since: float = field(default_factory=time.monotonic)


class Lanes:
    """The queue and the threads of one version.

    Args:
        requesters: one for each thread.
        max_rows: most rows that are computed together; 0 if requests are computed one by one.
        max_delay_s: how long a request waits for company.
        max_queued: most requests that wait.
        retry_after_s: what a refused request is told.
        probe: tells whose fault a failure is.
    """

    def __init__(
        self,
        requesters: Sequence[Requester],
        *,
        max_rows: int,
        max_delay_s: float,
        max_queued: int,
        retry_after_s: float,
        probe: Judge,
    ) -> None:
        self._max_rows = max_rows
        self._max_delay_s = max_delay_s
        self._max_queued = max_queued
        self._retry_after_s = retry_after_s
        self._probe = probe
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._failures = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name=f"openvino-{i}", daemon=True)
            for i, one in enumerate(requesters)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, inputs: Sequence[NDArray[Any]], outputs: tuple[int, ...]) -> Arrays:
        """Compute; cancelling takes what still waits out of the queue.

        Raises:
            PlatformError: RESOURCE_EXHAUSTED, at once, when too many requests wait; UNAVAILABLE
                when the version has been closed; INVALID_ARGUMENT for inputs that it can't compute.
        """
        job = Job(
            inputs=inputs,
            outputs=outputs,
            rows=length(inputs) if self._max_rows else 0,
            key=tuple(array.shape[1:] for array in inputs) if self._max_rows else (),
            future=asyncio.get_running_loop().create_future(),
        )
        self._put(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            with self._changed:
                if job in self._waiting:
                    self._waiting.remove(job)
            raise

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether no more requests are taken."""
        return self._closed

    @property
    def dead(self) -> bool:
        """Whether every inference fails."""
        return self._failures >= FAILURES_LIMIT

    def check_room(self, waiting: int) -> None:
        """Refuse one more where so many wait already.

        Raises:
            PlatformError: RESOURCE_EXHAUSTED.
        """
        if waiting >= self._max_queued:
            raise overloaded(self._retry_after_s)

    def close(self) -> None:
        """Take no more requests, finish those that are here, and end the threads; blocks."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _put(self, job: Job) -> None:
        with self._changed:
            if self._closed:
                raise PlatformError(
                    Code.UNAVAILABLE, "The model's version is being unloaded. Retry later."
                )
            self.check_room(len(self._waiting))
            self._waiting.append(job)
            self._changed.notify()

    def _work(self, requester: Requester) -> None:
        while True:
            with self._changed:
                while (batch := self._next()) is None:
                    self._changed.wait(self._patience())
            if not batch:
                return
            self._compute(requester, batch)

    def _next(self) -> list[Job] | None:
        """Take the next batch; empty at the end of all work, None if there is nothing to do yet."""
        if not self._waiting:
            return [] if self._closed else None
        oldest = self._waiting[0]
        if not self._max_rows or oldest.rows >= self._max_rows or not oldest.rows:
            return [self._waiting.pop(0)]
        batch, rest, rows = [], [], 0
        for job in self._waiting:
            if job.key == oldest.key and job.rows and rows + job.rows <= self._max_rows:
                batch.append(job)
                rows += job.rows
            else:
                rest.append(job)
        if rows < self._max_rows and self._patience() and not self._closed:
            return None
        self._waiting = rest
        return batch

    def _patience(self) -> float | None:
        """Return how long the oldest request may still wait for company; None to wait for one."""
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0].since + self._max_delay_s - time.monotonic())

    def _compute(self, requester: Requester, batch: list[Job]) -> None:
        """Compute a batch, one by one if it fails as a whole, and answer its requests."""
        if len(batch) > 1:
            try:
                found = together(requester, batch)
                answer_from_thread(
                    [(j.future, arrays) for j, arrays in zip(batch, found, strict=True)]
                )
            except Exception:  # noqa: BLE001  # one request's numbers must not fail the others'
                log.debug("a batch of %d failed as a whole", len(batch))
            else:
                self._succeeded(batch[0])
                return
        answer_from_thread([(job.future, self._alone(requester, job)) for job in batch])

    def _alone(self, requester: Requester, job: Job) -> Arrays | BaseException:
        try:
            found = requester(job.inputs, job.outputs)
        except PlatformError as error:
            return error
        except Exception as error:
            theirs = self._probe.blame(requester, job.inputs)
            if theirs is None:
                log.warning("an inference failed", exc_info=True)
                self._failures += 1
                return error
            self._failures = 0
            return theirs
        self._succeeded(job)
        return found

    def _succeeded(self, job: Job) -> None:
        self._failures = 0
        self._probe.learn(job.inputs)


def length(inputs: Sequence[NDArray[Any]]) -> int:
    """Return the length of the first axis, or 0 if it is not every input's.

    A model may stretch one row over the rows of another input; behind the rows of other requests it
    would be stretched over theirs, or meet the wrong ones.
    """
    lengths = {len(array) for array in inputs}
    return lengths.pop() if len(lengths) == 1 else 0


def together(requester: Requester, batch: Sequence[Job]) -> list[Arrays]:
    """Compute several requests in one inference and share the rows out.

    Raises:
        ValueError: if the outputs are not those of the rows.
    """
    columns = zip(*(job.inputs for job in batch), strict=True)
    wanted = sorted({place for job in batch for place in job.outputs})
    made = dict(zip(wanted, requester([np.concatenate(c) for c in columns], wanted), strict=True))
    total = sum(job.rows for job in batch)
    if any(len(array) != total for array in made.values()):
        raise ValueError("an output has not the rows of the inputs")
    answers, start = [], 0
    for job in batch:
        answers.append([made[place][start : start + job.rows] for place in job.outputs])
        start += job.rows
    return answers
