"""`python -m rayserve_platform.runtimes.genai.worker`: the process that computes.

Standard input is a socket: frames (`wire`) come and go there. It ends when the other end does, that
is with its parent.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rayserve_platform.core.errors import PlatformError, internal_error
from rayserve_platform.core.messages import Generate, Guided, Tokenize
from rayserve_platform.runtimes.genai.answers import Job
from rayserve_platform.runtimes.genai.guides import Guides
from rayserve_platform.runtimes.genai.loading import Loaded, load
from rayserve_platform.runtimes.genai.loop import DecodingLoop
from rayserve_platform.runtimes.genai.preparing import Preparer
from rayserve_platform.runtimes.genai.trial import Trial
from rayserve_platform.runtimes.genai.wire import (
    Call,
    Cancel,
    Decode,
    Facts,
    Items,
    Ping,
    frame,
    frames,
)

log = logging.getLogger("rayserve.genai")


class Outbox:
    """Writes frames, from any thread."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._lock = threading.Lock()

    def send(self, message: object) -> None:
        """Write a message; waits while the other end does not read."""
        content = memoryview(frame(message))
        with self._lock:
            while content:
                content = content[os.write(self._file, content) :]


class Desk:
    """Takes calls in: texts are tokenized in a thread of their own, beside the steps."""

    def __init__(
        self, preparer: Preparer, guides: Guides, loop: DecodingLoop, outbox: Outbox
    ) -> None:
        self._left: set[int] = set()
        self._preparer = preparer
        self._guides = guides
        self._loop = loop
        self._outbox = outbox
        self._texts = ThreadPoolExecutor(1, "texts")

    def take(self, messages: Iterator[Any]) -> None:
        """Take messages in until the other end closes, and end the process then."""
        try:
            for message in messages:
                match message:
                    case Call(what=Ping() as ping):
                        # The way that requests go: where one hangs, so does this.
                        self._texts.submit(self._loop.put, ping)
                    case Call():
                        self._texts.submit(self._prepare, message)
                    case Cancel():
                        self._left.add(message.number)
                        # Behind what it cancels, which may be on its way through `_prepare`.
                        self._texts.submit(self._leave, message)
        finally:
            os._exit(0)

    def _prepare(self, call: Call) -> None:
        if call.number in self._left:
            return
        answer: Items
        try:
            match call.what:
                case Generate():
                    self._begin(self._preparer.job(call.number, call.what))
                    return
                case Tokenize():
                    answer = [(call.number, self._preparer.tokens(call.what)), (call.number, None)]
                case Decode():
                    text = self._preparer.text(call.what.ids)
                    answer = [(call.number, text), (call.number, None)]
                case _:
                    return
        except PlatformError as error:
            answer = [(call.number, error)]
        except Exception:
            log.exception("a request could not be prepared")
            answer = [(call.number, internal_error())]
        self._outbox.send(answer)

    def _begin(self, job: Job) -> None:
        if job.request.guided is None:
            self._loop.put(job)
            return
        if job.deadline is not None:
            timer = threading.Timer(job.deadline - time.monotonic(), self._expire, [job])
            timer.daemon = True
            timer.start()
        self._guides.put(
            job.number,
            job.request.guided,
            ready=lambda: self._loop.put(job),
            refuse=lambda error: self._outbox.send([(job.number, error)]),
        )

    def _expire(self, job: Job) -> None:
        """Let the loop end a job whose time is over while its guide waits."""
        if self._guides.leave(job.number):
            self._loop.put(job)

    def _leave(self, cancel: Cancel) -> None:
        self._left.discard(cancel.number)
        self._guides.leave(cancel.number)
        self._loop.put(cancel)


def _guides(loaded: Loaded, loop: DecodingLoop) -> Guides:
    """Have guides compiled elsewhere first, and then here, before a step would."""
    examiner = loaded.examiner

    def forget() -> None:
        done = threading.Event()

        def between_steps() -> None:
            examiner.forget()
            done.set()

        loop.put(between_steps)
        done.wait()

    trial = Trial(
        loaded.tokenizer_path, logits=examiner.logits, end_ids=loaded.end_ids, forget=forget
    )

    def check(guided: Guided) -> None:
        trial.check(guided)
        examiner.check(guided)

    return Guides(check)


def main() -> None:
    """Load the model that the first frame names, and serve it."""
    logging.basicConfig(level=logging.INFO)
    outbox, messages = Outbox(os.dup(0)), frames(os.dup(0))
    settings, path = next(messages)
    try:
        loaded = load(path, settings)
    except PlatformError as error:
        outbox.send(error)
        return
    loop = DecodingLoop(loaded.pipeline, loaded.cache, outbox.send)
    preparer = Preparer(loaded, most_answers=settings.engine.max_batch_size)
    desk = Desk(preparer, _guides(loaded, loop), loop, outbox)
    threading.Thread(target=desk.take, args=(messages,), name="desk", daemon=True).start()
    outbox.send(Facts(max_model_len=loaded.max_model_len, chat=loaded.texts.has_chat_template))
    try:
        loop.run()
    except Exception:
        log.exception("the decoding loop has died")
        os._exit(1)


if __name__ == "__main__":
    main()
