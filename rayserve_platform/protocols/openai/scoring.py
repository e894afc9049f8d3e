"""Scoring and reranking by translation: bodies to `Score`, scores to answers.

Shapes: vLLM's server (`/score`, `/v1/score`; `/rerank`, `/v1/rerank`, `/v2/rerank` as Jina AI and
Cohere define it).
"""

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import InputTooLong
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.protocols.openai.render import usage
from rayserve_platform.protocols.openai.schema import RerankBody, ScoreBody
from rayserve_platform.protocols.openai.translate import invalid


async def score(served: Served, body: ScoreBody, request_id: str) -> dict[str, Any]:
    """Score pairs: one text with each of several, or the texts of two lists one by one.

    Raises:
        PlatformError: INVALID_ARGUMENT when the lists don't fit each other.
    """
    fields = _pair_fields(body)
    first, second = (_texts(getattr(body, field), field) for field in fields)
    if len(first) not in (1, len(second)):
        raise invalid(
            f"'{fields[0]}' must hold one text, or as many as '{fields[1]}' ({len(second)}).",
            fields[0],
        )
    limit = body.truncate_prompt_tokens
    if len(first) == 1:
        with _named(*fields):
            found = [await _score(served, first, second, limit, request_id)]
        scores = found[0].scores[0].tolist()
    else:
        with _named(*fields):
            found = await _one_by_one(served, first, second, limit, request_id)
        scores = [float(each.scores[0, 0]) for each in found]
    tokens = sum(each.token_count for each in found)
    return {
        "id": f"score-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": body.model or served.card.id,
        "data": [{"index": i, "object": "score", "score": s} for i, s in enumerate(scores)],
        "usage": usage(tokens, 0),
    }


async def rerank(served: Served, body: RerankBody, request_id: str) -> dict[str, Any]:
    """Order documents by how well they answer the query, the best first."""
    documents = _texts(body.documents, "documents")
    with _named("query", "documents"):
        found = await _score(
            served, [body.query], documents, body.truncate_prompt_tokens, request_id
        )
    scores = found.scores[0].tolist()
    order = sorted(range(len(documents)), key=lambda i: -scores[i])
    return {
        "id": f"rerank-{secrets.token_hex(12)}",
        "model": body.model or served.card.id,
        "usage": {"prompt_tokens": found.token_count, "total_tokens": found.token_count},
        "results": [
            {"index": i, "document": {"text": documents[i]}, "relevance_score": scores[i]}
            for i in order[: body.top_n or None]
        ],
    }


async def _score(
    served: Served, queries: Sequence[str], documents: Sequence[str], limit: int | None, name: str
) -> Scores:
    request = Score(
        model=served.card.id,
        queries=tuple(queries),
        documents=tuple(documents),
        truncate_tokens=limit,
        request_id=name,
    )
    return await served.runtime.score(request)


async def _one_by_one(
    served: Served, first: Sequence[str], second: Sequence[str], limit: int | None, name: str
) -> list[Scores]:
    """Score each pair by itself: a matrix of all would be mostly thrown away."""

    async def one(index: int) -> Scores:
        try:
            return await _score(served, [first[index]], [second[index]], limit, name)
        except InputTooLong as error:
            raise InputTooLong(limit=error.limit, field=error.field, indexes=(index,)) from None

    tasks = [asyncio.create_task(one(index)) for index in range(len(second))]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _pair_fields(body: ScoreBody) -> tuple[str, str]:
    """Return the names of the two lists; vLLM takes three pairs of names for them."""
    for first, second in (("text_1", "text_2"), ("queries", "documents"), ("queries", "items")):
        if getattr(body, first) is not None and getattr(body, second) is not None:
            return first, second
    raise invalid("'text_1' and 'text_2' (or 'queries' and 'documents') are required.", "text_1")


def _texts(given: str | list[str], field: str) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not texts:
        raise invalid(f"'{field}' must hold at least one text.", field)
    return texts


@contextmanager
def _named(queries: str, documents: str) -> Iterator[None]:
    """Name a text that is too long as the body does."""
    try:
        yield
    except InputTooLong as error:
        field = queries if error.field == "queries" else documents
        raise InputTooLong(limit=error.limit, field=field, indexes=error.indexes) from None
