"""The decoding loop: one thread that writes all answers together, a token a step.

Requests join at the boundary of a step and leave at the one where they end, fail, are cancelled or
run out of time; nobody waits for the longest answer of a batch.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

import torch

from rayserve_platform.core.errors import engine_unavailable, overloaded
from rayserve_platform.runtimes.torch.batches import Batches
from rayserve_platform.runtimes.torch.job import Job
from rayserve_platform.runtimes.torch.results import Results

log = logging.getLogger("rayserve.torch")


class DecodingLoop:
    """Owns the thread. Its methods are for the event loop; `stop` alone waits for the model.

    Args:
        batches: the answers in progress.
        max_batch_size: most of them.
        max_waiting: most requests without a place.
        deliver: takes the results of a step; called in the thread.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        max_batch_size: int,
        max_waiting: int,
        deliver: Callable[[Results], None],
    ) -> None:
        self._batches = batches
        self._max_batch_size = max_batch_size
        self._max_waiting = max_waiting
        self._deliver = deliver
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._jobs: list[Job] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 30) -> None:
        """End the thread after the step it is in; what is unfinished fails. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether requests will be answered."""
        return self._thread.is_alive() and not self._closing

    @property
    def running(self) -> int:
        """Requests that have not ended, waiting ones included."""
        with self._changed:
            return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Queue a request.

        Raises:
            PlatformError: RESOURCE_EXHAUSTED if too many wait, UNAVAILABLE if the thread is dead.
        """
        with self._changed:
            if not self.is_alive:
                raise engine_unavailable()
            if len(self._waiting) >= self._max_waiting:
                raise overloaded()
            self._waiting.append(job)
            self._jobs.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take a request out at the next step; nothing happens to one that has ended."""
        with self._changed:
            job.cancelled = True
            self._changed.notify()

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._turn():
                    pass
        except Exception:
            log.exception("the decoding loop has died")
        results = Results()
        with self._changed:
            self._closing = True
            for job in self._jobs:
                results.end(job, engine_unavailable())
            self._jobs.clear()
        self._deliver(results)

    def _turn(self) -> bool:
        """Let requests leave and join, and take one step. Waits while there is nothing to do."""
        results = Results()
        with self._changed:
            while not (self._closing or self._waiting or len(self._batches)):
                self._changed.wait()
            if self._closing:
                return False
            self._let_leave(results)
            jobs = self._admitted()
        try:
            # The answers in progress first: their next token waits for no prompt.
            self._batches.step(results)
            if jobs:
                self._batches.begin(jobs, results)
        finally:
            with self._changed:
                self._jobs = [job for job in self._jobs if not job.is_over]
            self._deliver(results)
        return True

    def _let_leave(self, results: Results) -> None:
        for job in [job for job in self._waiting if job.cancelled or job.is_late]:
            self._waiting.remove(job)
            if not job.cancelled:
                for chunk in job.out_of_time():
                    results.add(job, chunk)
                results.end(job)
        self._batches.drop_cancelled()
        self._jobs = [job for job in self._jobs if not job.cancelled]

    def _admitted(self) -> list[Job]:
        """Take requests that can be read together, the longest-waiting first."""
        free = self._max_batch_size - len(self._batches)
        jobs: list[Job] = []
        while self._waiting:
            job = self._waiting[0]
            free -= job.request.n
            if free < 0 or (jobs and not self._batches.read_together([*jobs, job])):
                break
            jobs.append(self._waiting.popleft())
            job.begin()
        return jobs
