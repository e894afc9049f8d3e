"""One row of a batch: an answer and its next token."""

import torch

from rayserve_platform.core.messages import Chunk, Stop, StopReason, Token
from rayserve_platform.core.stream import join
from rayserve_platform.runtimes.torch.job import Answer, Job


class Row:
    """Moves one answer on, a token at a time."""

    def __init__(self, job: Job, answer: Answer) -> None:
        self.job = job
        self._answer = answer

    @property
    def takes_likeliest(self) -> bool:
        """Whether the next token is the likeliest, without any processing."""
        return self._answer.chooser.takes_likeliest

    @property
    def last_id(self) -> int:
        """The token that was written last."""
        return self._answer.last_id

    def advance(self, logits: torch.Tensor, likeliest: int | None) -> tuple[Chunk | None, bool]:
        """Write the next token.

        Args:
            logits: the model's own, [vocabulary].
            likeliest: the token with the highest, where a row of the batch asks for it.

        Returns:
            A chunk where one can go out, and whether the answer has ended.
        """
        answer, request = self._answer, self.job.request
        if likeliest is not None and answer.chooser.takes_likeliest:
            token_id = likeliest
        else:
            token_id = answer.chooser.choose(logits)
        answer.chooser.note(token_id)
        answer.last_id = token_id
        answer.count += 1
        stop = self._stop(token_id)
        chunk = Chunk(
            index=answer.index,
            text=answer.writing.release(ended=stop is not None),
            tokens=self._tokens(token_id, logits),
            generated_tokens=answer.count,
            seed=request.sampling.seed if answer.count == 1 else None,
            stop=stop,
        )
        if request.stream:
            return self.job.opened(chunk), stop is not None
        answer.kept.append(chunk)
        if stop is None:
            return None, False
        return self.job.opened(join(answer.kept)), True

    def _stop(self, token_id: int) -> Stop | None:
        """Add the token to the text and say whether, and why, the answer ends with it."""
        writing = self._answer.writing
        stop = self.job.ending.after(writing, token_id, self._answer.count)
        if stop is None and self.job.is_late:
            stop = Stop(reason=StopReason.TIME_LIMIT)
            writing.end()
        return stop

    def _tokens(self, token_id: int, logits: torch.Tensor) -> tuple[Token, ...]:
        if not self.job.request.details.generated_tokens:
            return ()
        return self.job.describer.tokens([token_id], logits[None])
