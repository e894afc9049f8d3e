"""vLLM's outputs as the vocabulary's chunks. Pure, but for the counts of one request."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vllm.outputs import CompletionOutput, RequestOutput

from rayserve_platform.core.messages import (
    Chunk,
    Generate,
    PromptInfo,
    Stop,
    StopReason,
    Token,
)

TokenText = Callable[[int], str]
"""Token id to vocabulary text (`ĠParis`, not decoded)."""


class ChunkMaker:
    """Turns the outputs of one request into chunks.

    Args:
        clamped: whether `max_new_tokens` was lowered to what the model's length leaves room for.
        prompt_text: the prompt before any truncation.

    `timed_out` is set by whoever aborts the request for its time limit.
    """

    def __init__(
        self,
        request: Generate,
        *,
        clamped: bool,
        eos: int | None,
        token_text: TokenText,
        prompt_text: str | None,
    ) -> None:
        self._request = request
        self._limit = StopReason.TOKEN_LIMIT if clamped else StopReason.MAX_TOKENS
        self._eos = eos
        self._token_text = token_text
        self._prompt_text = prompt_text
        self._counts = [0] * request.n
        self._prompt_sent = False
        self.timed_out = False

    def chunks(self, output: RequestOutput) -> list[Chunk]:
        """Return one chunk for each continuation that this output moved on."""
        return [self._chunk(output, part) for part in output.outputs]

    def _chunk(self, output: RequestOutput, part: CompletionOutput) -> Chunk:
        first = self._counts[part.index] == 0
        ids = list(part.token_ids)
        self._counts[part.index] += len(ids)
        details = self._request.details
        return Chunk(
            index=part.index,
            text=part.text,
            tokens=self._tokens(ids, part.logprobs) if details.generated_tokens else (),
            generated_tokens=self._counts[part.index],
            prompt=self._prompt(output),
            seed=self._request.sampling.seed if first else None,
            stop=self._stop(part, ids),
        )

    def _prompt(self, output: RequestOutput) -> PromptInfo | None:
        if self._prompt_sent or output.prompt_token_ids is None:
            return None
        self._prompt_sent = True
        details = self._request.details
        ids = output.prompt_token_ids
        return PromptInfo(
            token_count=len(ids),
            text=self._prompt_text if details.input_text else None,
            tokens=self._tokens(ids, output.prompt_logprobs) if details.input_tokens else (),
            queued_s=_queued_s(output.metrics),
        )

    def _tokens(
        self, ids: Sequence[int], logprobs: Sequence[Mapping[int, Any] | None] | None
    ) -> tuple[Token, ...]:
        found = logprobs if logprobs is not None else [None] * len(ids)
        return tuple(self._token(i, at) for i, at in zip(ids, found, strict=False))

    def _token(self, token_id: int, at: Mapping[int, Any] | None) -> Token:
        """Return one token; `at` holds vLLM's logprobs at its position, its own among them."""
        details = self._request.details
        own = at.get(token_id) if at else None
        top: list[Token] = []
        if at and details.top_n_tokens:
            ranked = sorted(at.items(), key=lambda item: item[1].rank or 0)
            top = [
                Token(id=i, text=self._token_text(i), logprob=p.logprob, rank=p.rank)
                for i, p in ranked[: details.top_n_tokens]
            ]
        return Token(
            id=token_id,
            text=self._token_text(token_id),
            logprob=own.logprob if own is not None and details.logprobs else None,
            rank=own.rank if own is not None and details.ranks else None,
            top=tuple(top),
        )

    def _stop(self, part: CompletionOutput, ids: Sequence[int]) -> Stop | None:
        reason = part.finish_reason
        if reason is None:
            return None
        if reason == "length":
            return Stop(reason=self._limit)
        if reason == "stop":
            if isinstance(part.stop_reason, str):
                return Stop(reason=StopReason.STOP_SEQUENCE, sequence=part.stop_reason)
            if part.stop_reason in self._request.stopping.stop_token_ids:
                text = self._token_text(part.stop_reason)
                return Stop(
                    reason=StopReason.STOP_SEQUENCE, sequence=text, token_id=part.stop_reason
                )
            # A model may have several end-of-text tokens.
            last = ids[-1] if ids else self._eos
            eos = self._token_text(last) if last is not None else None
            return Stop(reason=StopReason.EOS, sequence=eos, token_id=last)
        if reason != "abort":
            return Stop(reason=StopReason.ERROR)
        return Stop(reason=StopReason.TIME_LIMIT if self.timed_out else StopReason.CANCELLED)


def _queued_s(stats: Any) -> float | None:
    """Return how long a request waited to be scheduled; vLLM may keep no times."""
    if stats is None or not stats.queued_ts or not stats.scheduled_ts:
        return None
    waited: float = stats.scheduled_ts - stats.queued_ts
    return waited
