"""What is told of tokens: log probabilities and ranks in the model's own distribution."""

from collections.abc import Callable, Sequence

import torch

from rayserve_platform.core.messages import Details, Token

TokenText = Callable[[int], str]


class Describer:
    """Describes tokens as a request asked for. `wants_logits`: whether that takes their logits."""

    def __init__(self, details: Details, token_text: TokenText) -> None:
        self._details = details
        self._text = token_text
        self.wants_logits = details.logprobs or details.ranks or details.top_n_tokens > 0

    def plain(self, ids: Sequence[int]) -> tuple[Token, ...]:
        """Describe tokens by themselves."""
        return tuple(Token(id=i, text=self._text(i)) for i in ids)

    def tokens(self, ids: Sequence[int], logits: torch.Tensor) -> tuple[Token, ...]:
        """Describe tokens.

        Args:
            ids: the tokens.
            logits: [tokens, vocabulary], the model's own at each of them, before any processing.
        """
        if not self.wants_logits:
            return self.plain(ids)
        logprobs = logits.log_softmax(-1)
        own = logprobs.gather(-1, torch.tensor(ids, device=logits.device)[:, None])
        ranks = (logprobs >= own).sum(-1).tolist()
        count = max(0, min(self._details.top_n_tokens, logprobs.shape[-1]))
        values, tops = (found.tolist() for found in logprobs.topk(count, dim=-1))
        return tuple(
            self._token(i, p, r, self._top(top, value))
            for i, p, r, top, value in zip(
                ids, own[:, 0].tolist(), ranks, tops, values, strict=True
            )
        )

    def _top(self, ids: list[int], logprobs: list[float]) -> tuple[Token, ...]:
        ranked = enumerate(zip(ids, logprobs, strict=True), start=1)
        return tuple(
            Token(id=i, text=self._text(i), logprob=value, rank=rank) for rank, (i, value) in ranked
        )

    def _token(self, token_id: int, logprob: float, rank: int, top: tuple[Token, ...]) -> Token:
        return Token(
            id=token_id,
            text=self._text(token_id),
            logprob=logprob if self._details.logprobs else None,
            rank=rank if self._details.ranks else None,
            top=top,
        )
