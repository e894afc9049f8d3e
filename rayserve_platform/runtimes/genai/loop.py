"""The decoding loop: all answers move on together, a token a step."""

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import openvino
import openvino_genai

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.genai.answers import Answer, Job
from rayserve_platform.runtimes.genai.wire import Cancel, Items, Ping

log = logging.getLogger("rayserve.genai")


class DecodingLoop:
    """Drives the library's pipeline in the thread that calls `run`.

    Args:
        pipeline: the library's.
        send: takes what has come of the calls in a step.
    """

    def __init__(self, pipeline: Any, send: Callable[[Items], None]) -> None:
        self._pipeline = pipeline
        self._send = send
        self._inbox: SimpleQueue[Job | Cancel | Ping] = SimpleQueue()
        self._jobs: dict[int, Job] = {}
        self._handed_over = 0

    def put(self, item: Job | Cancel | Ping) -> None:
        """Hand something over; from any thread."""
        self._inbox.put(item)

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            self._take_in()
            if self._pipeline.has_non_finished_requests():
                self._pipeline.step()
            made: Items = []
            for job in list(self._jobs.values()):
                self._collect(job, made)
            if made:
                self._send(made)

    def _take_in(self) -> None:
        """Take what has come; wait for something while there is nothing to do."""
        idle = not self._jobs and not self._pipeline.has_non_finished_requests()
        try:
            while True:
                item = self._inbox.get(block=idle)
                idle = False
                match item:
                    case Job():
                        self._begin(item)
                    case Cancel():
                        self._leave(item.number)
                    case Ping():
                        self._send([(0, None)])
        except Empty:
            return

    def _begin(self, job: Job) -> None:
        ids = openvino.Tensor(np.array([job.prompt], dtype=np.int64))
        try:
            for answer in job.answers:
                self._handed_over += 1
                answer.handle = self._pipeline.add_request(self._handed_over, ids, answer.config)
        except RuntimeError as error:
            log.warning("a request was refused: %s", error)
            self._drop(job)
            message = "The engine can't take this request: its parameters contradict each other."
            self._send([(job.number, PlatformError(Code.INVALID_ARGUMENT, message))])
            return
        self._jobs[job.number] = job

    def _leave(self, number: int) -> None:
        """Let a request go, unless it has ended."""
        job = self._jobs.pop(number, None)
        if job is not None:
            self._drop(job)

    def _drop(self, job: Job) -> None:
        for answer in job.answers:
            if answer.handle is not None:
                answer.handle.cancel()

    def _collect(self, job: Job, made: Items) -> None:
        """Add what a step has brought a request."""
        chunks = []
        for answer in list(job.answers):
            try:
                ids, logprobs, ended = _read(answer)
            except PlatformError as error:
                self._drop(job)
                del self._jobs[job.number]
                made.append((job.number, error))
                return
            if not (ids or ended or job.is_late):
                continue
            chunk, over = job.advance(answer, ids, logprobs, ended=ended)
            if chunk is not None:
                chunks.append(chunk)
            if over:
                job.answers.remove(answer)
                if not ended:
                    answer.handle.cancel()
        if chunks:
            made.append((job.number, chunks))
        if not job.answers:
            del self._jobs[job.number]
            made.append((job.number, None))


def _read(answer: Answer) -> tuple[list[int], list[float], bool]:
    """Return an answer's new tokens, their log probabilities, and whether it has ended.

    Raises:
        PlatformError: RESOURCE_EXHAUSTED if there is no memory for it.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    while answer.handle.can_read():
        for output in answer.handle.read().values():
            ids += output.generated_ids
            logprobs += output.generated_log_probs
    status = answer.handle.get_status()
    if status == openvino_genai.GenerationStatus.IGNORED:
        raise PlatformError(
            Code.RESOURCE_EXHAUSTED,
            "The prompt and its answer do not fit into the memory for tokens.",
            retry_after_s=1,
        )
    return ids, logprobs, status != openvino_genai.GenerationStatus.RUNNING
