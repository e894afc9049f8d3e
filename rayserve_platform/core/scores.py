"""Ratings of documents for queries: the request and the answer, as those of `core.messages`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Rate how well each document answers each query.

    A bi-encoder answers with cosine similarities, a cross-encoder with its own scores.

    Args:
        truncate_tokens: as for `Embed`; it bounds each text, or each pair of a cross-encoder.
        lenient: without `truncate_tokens`, a pair that is too long is refused only where its
            tokens show it, and else cut: Caikit's way (`runtimes.embedding.texts`).
    """

    model: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    truncate_tokens: int | None = None
    lenient: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """`scores`: float32 [n queries, n documents]; `token_count`: of all texts together."""

    scores: NDArray[np.float32]
    token_count: int
