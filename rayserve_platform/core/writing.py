"""The text of one answer as its tokens come, and the stop sequences in it."""

from collections.abc import Callable, Sequence

from rayserve_platform.core.messages import Stopping

Decode = Callable[[Sequence[int]], str]

CONTEXT_TOKENS = 6
"""Tokens of the prompt that are decoded along, since how a token reads depends on those before it
(the first one of a text may lose its space)."""


class Writing:
    """Turns tokens into text. Text that may yet become part of a stop sequence is held back.

    Args:
        decode: token ids to text.
        stopping: the request's rules.
        before: the prompt that the answer continues; empty for an encoder-decoder model.
    """

    def __init__(self, decode: Decode, stopping: Stopping, before: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(before[-CONTEXT_TOKENS:])
        self._from, self._read = 0, len(self._ids)
        self._sequences = stopping.stop_sequences
        self._include = stopping.include_stop_sequence
        self._hold = 0 if self._include else max(map(len, self._sequences), default=1) - 1
        self._text = ""
        self._sent = 0

    def add(self, token_id: int, *, may_stop: bool = True) -> str | None:
        """Take a token; return the stop sequence that it completes, where stopping is allowed."""
        self._ids.append(token_id)
        known, text = self._decoded()
        if len(text) <= len(known) or text.endswith("\ufffd"):
            return None  # the token has no text, or ends amid a character
        self._from, self._read = self._read, len(self._ids)
        return self._append(text[len(known) :], may_stop=may_stop)

    def end(self) -> None:
        """Take what is left of a character that never came to its end."""
        known, text = self._decoded()
        self._append(text[len(known) :], may_stop=False)

    def release(self, *, ended: bool) -> str:
        """Return new text that can go out; all of it once the answer has ended."""
        end = len(self._text) if ended else max(self._sent, len(self._text) - self._hold)
        new, self._sent = self._text[self._sent : end], end
        return new

    def _decoded(self) -> tuple[str, str]:
        return self._decode(self._ids[self._from : self._read]), self._decode(
            self._ids[self._from :]
        )

    def _append(self, new: str, *, may_stop: bool) -> str | None:
        searched = len(self._text)
        self._text += new
        if not (may_stop and new):
            return None
        found = [
            (place + len(sequence), order, place)
            for order, sequence in enumerate(self._sequences)
            if sequence
            and (place := self._text.find(sequence, max(0, searched - len(sequence) + 1))) >= 0
        ]
        if not found:
            return None
        end, order, place = min(found)
        self._text = self._text[: end if self._include else place]
        return self._sequences[order]
