"""One request on its way between the event loop and the decoding loop."""

import time
from dataclasses import dataclass, field, replace

from rayserve_platform.core.arrivals import Arrivals
from rayserve_platform.core.ending import Ending
from rayserve_platform.core.messages import (
    Chunk,
    Generate,
    PromptInfo,
    Stop,
    StopReason,
    Token,
)
from rayserve_platform.core.writing import Writing
from rayserve_platform.runtimes.torch.details import Describer
from rayserve_platform.runtimes.torch.sampling import Chooser

Item = Chunk | Exception | None
"""A piece of an answer, what made the request fail, or its end."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """What the decoding loop needs of a request, and the way its results take back.

    Args:
        request: what was asked for.
        prompt: the model's input.
        prompt_text: the prompt before any truncation, where it is asked for.
        answers: one for each of the request's `n`.
        describer: of this request's tokens.
        prompt_logits: whether the prompt's tokens are described by their logits.
        ending: where its answers end.
        arrivals: what has come of it, in the event loop.
    """

    request: Generate
    prompt: list[int]
    prompt_text: str | None
    answers: list["Answer"]
    describer: Describer
    prompt_logits: bool
    ending: Ending
    arrivals: Arrivals[Chunk] = field(default_factory=Arrivals)
    cancelled: bool = False
    is_over: bool = False
    prompt_tokens: tuple[Token, ...] = ()
    queued_s: float | None = None
    _made: float = field(default_factory=time.monotonic)
    _deadline: float | None = None
    _opened: bool = False
    _ended: int = 0

    def __post_init__(self) -> None:
        limit_s = self.request.stopping.time_limit_s
        self._deadline = None if limit_s is None else self._made + limit_s

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def begin(self) -> None:
        """Note that its turn has come."""
        self.queued_s = time.monotonic() - self._made

    def out_of_time(self) -> list[Chunk]:
        """Return the answers of a request that had no turn in its time."""
        stop = Stop(reason=StopReason.TIME_LIMIT)
        return [self.opened(Chunk(index=i, stop=stop)) for i in range(self.request.n)]

    def count_ended(self) -> bool:
        """Count an answer that has ended; return whether it was the last."""
        self._ended += 1
        return self._ended == len(self.answers)

    def opened(self, chunk: Chunk) -> Chunk:
        """Put what is told of the prompt on the request's first chunk."""
        if self._opened:
            return chunk
        self._opened = True
        details = self.request.details
        tokens: tuple[Token, ...] = ()
        if details.input_tokens:
            tokens = self.prompt_tokens or self.describer.plain(self.prompt)
        text = self.prompt_text if details.input_text else None
        info = PromptInfo(
            token_count=len(self.prompt), text=text, tokens=tokens, queued_s=self.queued_s
        )
        return replace(chunk, prompt=info)


@dataclass(slots=True, kw_only=True, eq=False)
class Answer:
    """One of the answers to a request, as far as it is written.

    Args:
        index: its place among them.
        chooser: of its tokens.
        writing: of its text.
        count: tokens so far.
        last_id: the last of them.
        kept: chunks of an answer that goes out as a whole.
    """

    index: int
    chooser: Chooser
    writing: Writing
    count: int = 0
    last_id: int = -1
    kept: list[Chunk] = field(default_factory=list)
