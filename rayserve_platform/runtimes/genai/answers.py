"""The answers to one request as far as they are written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rayserve_platform.core.ending import Ending
from rayserve_platform.core.messages import (
    Chunk,
    Generate,
    PromptInfo,
    Stop,
    StopReason,
    Token,
)
from rayserve_platform.core.stream import join
from rayserve_platform.core.writing import Writing
from rayserve_platform.runtimes.genai.sampling import wants_logprobs
from rayserve_platform.runtimes.genai.texts import Texts


@dataclass(slots=True, kw_only=True, eq=False)
class Answer:
    """One answer.

    Args:
        index: its place among the request's.
        config: the library's.
        writing: of its text.
        handle: the library's, once it has been handed over.
        blocks: of the cache that are kept for it.
        count: tokens so far.
        kept: chunks of an answer that goes out as a whole.
    """

    index: int
    config: Any
    writing: Writing
    handle: Any = None
    blocks: int = 0
    count: int = 0
    kept: list[Chunk] = field(default_factory=list)


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A request on its way through the library.

    Args:
        number: of the call.
        ending: where its answers end.
    """

    number: int
    request: Generate
    prompt: list[int]
    prompt_text: str | None
    answers: list[Answer]
    ending: Ending
    texts: Texts
    deadline: float | None = None
    _opened: bool = False

    @property
    def most_tokens(self) -> int:
        """What an answer may come to, with its prompt."""
        return len(self.prompt) + self.ending.limit

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def advance(
        self, answer: Answer, ids: Sequence[int], logprobs: Sequence[float], *, ended: bool
    ) -> tuple[Chunk | None, bool]:
        """Write new tokens of an answer.

        Args:
            answer: one of this request's.
            ids: its new tokens.
            logprobs: of each in the model's own distribution; zeros unless they were asked for.
            ended: whether the library ends the answer with them.

        Returns:
            A chunk where one can go out, and whether the answer has ended.
        """
        first = answer.count == 0
        stop, taken = None, 0
        for token_id in ids:
            taken += 1
            answer.count += 1
            stop = self.ending.after(answer.writing, token_id, answer.count)
            if stop is not None:
                break
        if stop is None and (ended or self.is_late):
            reason = self.ending.limit_reason if ended else StopReason.TIME_LIMIT
            stop = Stop(reason=reason)
            answer.writing.end()
        chunk = Chunk(
            index=answer.index,
            text=answer.writing.release(ended=stop is not None),
            tokens=self._tokens(ids[:taken], logprobs[:taken]),
            generated_tokens=answer.count,
            seed=self.request.sampling.seed if first else None,
            stop=stop,
        )
        return self._outgoing(answer, chunk)

    def _outgoing(self, answer: Answer, chunk: Chunk) -> tuple[Chunk | None, bool]:
        ended = chunk.stop is not None
        if self.request.stream:
            return self._with_prompt(chunk), ended
        answer.kept.append(chunk)
        return (self._with_prompt(join(answer.kept)) if ended else None), ended

    def _with_prompt(self, chunk: Chunk) -> Chunk:
        """Put what is told of the prompt on the request's first chunk."""
        if self._opened:
            return chunk
        self._opened = True
        details = self.request.details
        tokens: tuple[Token, ...] = ()
        if details.input_tokens:
            tokens = tuple(Token(id=i, text=self.texts.token(i)) for i in self.prompt)
        info = PromptInfo(token_count=len(self.prompt), text=self.prompt_text, tokens=tokens)
        return replace(chunk, prompt=info)

    def _tokens(self, ids: Sequence[int], logprobs: Sequence[float]) -> tuple[Token, ...]:
        details = self.request.details
        if not details.generated_tokens:
            return ()
        if not wants_logprobs(self.request):
            return tuple(Token(id=i, text=self.texts.token(i)) for i in ids)
        return tuple(self._token(i, p) for i, p in zip(ids, logprobs, strict=True))

    def _token(self, token_id: int, logprob: float) -> Token:
        """Describe a token; where ranks and others are asked for, it is the likeliest one."""
        details = self.request.details
        text = self.texts.token(token_id)
        best = Token(id=token_id, text=text, logprob=logprob, rank=1)
        return Token(
            id=token_id,
            text=text,
            logprob=logprob if details.logprobs else None,
            rank=1 if details.ranks else None,
            top=(best,) if details.top_n_tokens else (),
        )
