"""The decoding loop: all answers move on together, a token a step."""

import logging
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import openvino
import openvino_genai

from rayserve_platform.core.errors import Code, PlatformError, internal_error
from rayserve_platform.runtimes.genai.answers import Answer, Job
from rayserve_platform.runtimes.genai.cache import Cache
from rayserve_platform.runtimes.genai.wire import Cancel, Items, Ping

log = logging.getLogger("rayserve.genai")


class DecodingLoop:
    """Drives the library's pipeline in the thread that calls `run`.

    Args:
        pipeline: the library's.
        cache: the pipeline's, with room for each job at least.
        send: takes what has come of the calls in a step.
    """

    def __init__(self, pipeline: Any, cache: Cache, send: Callable[[Items], None]) -> None:
        self._pipeline = pipeline
        self._cache = cache
        self._send = send
        self._inbox: SimpleQueue[Job | Cancel | Ping | Callable[[], object]] = SimpleQueue()
        self._jobs: dict[int, Job] = {}
        self._waiting: deque[tuple[Job, Answer]] = deque()
        self._handed_over = 0
        self._freed_by_step = 0

    def put(self, item: Job | Cancel | Ping | Callable[[], object]) -> None:
        """Hand something over, or have it called between two steps; from any thread."""
        self._inbox.put(item)

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            self._take_in()
            self._hand_over()
            if self._pipeline.has_non_finished_requests():
                self._pipeline.step()
            self._cache.give_back(self._freed_by_step)
            self._freed_by_step = 0
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
                        self._jobs[item.number] = item
                        self._waiting.extend((item, answer) for answer in item.answers)
                    case Cancel():
                        self._leave(item.number)
                    case Ping():
                        self._send([(0, None)])
                    case _:
                        item()
        except Empty:
            return

    def _hand_over(self) -> None:
        """Give the library what there is memory for, first come first served."""
        while self._waiting:
            job, answer = self._waiting[0]
            if job.number in self._jobs and not job.is_late:
                blocks = self._cache.take(job.most_tokens)
                if blocks is None:
                    return
                answer.blocks = blocks
                self._begin(job, answer)
            self._waiting.popleft()

    def _begin(self, job: Job, answer: Answer) -> None:
        ids = openvino.Tensor(np.array([job.prompt], dtype=np.int64))
        self._handed_over += 1
        try:
            answer.handle = self._pipeline.add_request(self._handed_over, ids, answer.config)
        except RuntimeError as error:
            log.warning("a request was refused: %s", error)
            self._leave(job.number)
            message = "The engine can't take this request: its parameters contradict each other."
            self._send([(job.number, PlatformError(Code.INVALID_ARGUMENT, message))])

    def _leave(self, number: int) -> None:
        """Let a request go, unless it has ended."""
        job = self._jobs.pop(number, None)
        if job is not None:
            for answer in job.answers:
                self._cancel(answer)

    def _cancel(self, answer: Answer) -> None:
        """Let an answer go; the library frees its memory at the end of the next step."""
        if answer.handle is not None:
            answer.handle.cancel()
        self._freed_by_step += answer.blocks

    def _collect(self, job: Job, made: Items) -> None:
        """Add what a step has brought a request."""
        chunks = []
        for answer in list(job.answers):
            try:
                ids, logprobs, ended = _read(answer)
            except PlatformError as error:
                self._leave(job.number)
                made.append((job.number, error))
                return
            if not (ids or ended or job.is_late):
                continue
            chunk, over = job.advance(answer, ids, logprobs, ended=ended)
            if chunk is not None:
                chunks.append(chunk)
            if over:
                job.answers.remove(answer)
                if ended:
                    self._cache.give_back(answer.blocks)
                else:
                    self._cancel(answer)
        if chunks:
            made.append((job.number, chunks))
        if not job.answers:
            del self._jobs[job.number]
            made.append((job.number, None))


def _read(answer: Answer) -> tuple[list[int], list[float], bool]:
    """Return an answer's new tokens, their log probabilities, and whether it has ended.

    Raises:
        PlatformError: INTERNAL if the library finds no memory for it.
    """
    ids: list[int] = []
    logprobs: list[float] = []
    if answer.handle is None:
        return ids, logprobs, False
    while answer.handle.can_read():
        for output in answer.handle.read().values():
            ids += output.generated_ids
            logprobs += output.generated_log_probs
    status = answer.handle.get_status()
    if status == openvino_genai.GenerationStatus.IGNORED:
        log.error("the library finds no memory for a request, though it was kept for it")
        raise internal_error()
    return ids, logprobs, status != openvino_genai.GenerationStatus.RUNNING
