"""Where an answer ends, by its tokens."""

from collections.abc import Callable
from dataclasses import dataclass

from rayserve_platform.core.messages import Stop, Stopping, StopReason
from rayserve_platform.core.writing import Writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The rules of one request.

    Args:
        rules: what was asked for.
        end_ids: the model's end-of-text tokens.
        limit: most new tokens of an answer.
        limit_reason: why there can't be more.
        text_of: a token's text.
    """

    rules: Stopping
    end_ids: frozenset[int]
    limit: int
    limit_reason: StopReason
    text_of: Callable[[int], str]

    def after(self, writing: Writing, token_id: int, count: int) -> Stop | None:
        """Add a token, the `count`th, to the text and say whether, and why, the answer ends."""
        stop = self._by_token(token_id)
        sequence = None
        if stop is None or self.rules.include_stop_sequence:
            may_stop = count > self.rules.min_new_tokens
            sequence = writing.add(token_id, may_stop=may_stop)
        if sequence is not None:
            return Stop(reason=StopReason.STOP_SEQUENCE, sequence=sequence)
        if stop is None and count >= self.limit:
            stop = Stop(reason=self.limit_reason)
        if stop is not None:
            writing.end()
        return stop

    def _by_token(self, token_id: int) -> Stop | None:
        if token_id in self.end_ids and not self.rules.ignore_eos:
            reason = StopReason.EOS
        elif token_id in self.rules.stop_token_ids:
            reason = StopReason.STOP_SEQUENCE
        else:
            return None
        return Stop(reason=reason, sequence=self.text_of(token_id), token_id=token_id)
