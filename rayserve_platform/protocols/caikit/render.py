"""Answers of Caikit's REST API as bytes.

What its runtime computed is written as Python's `json.dumps` writes it; what its web framework says
(information, 422, 404, 405, 415) is compact.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from rayserve_platform.core.messages import Chunk, Embeddings, Token, Tokens
from rayserve_platform.core.scores import Scores
from rayserve_platform.protocols.caikit import tasks
from rayserve_platform.protocols.caikit.answer import Answer
from rayserve_platform.protocols.caikit.generation import reason_of
from rayserve_platform.protocols.caikit.translate import Arguments, document_text, ranking


def body(answer: Answer) -> bytes:
    """Render the answer to a task."""
    result = answer.result
    if isinstance(result, Tokens):
        return dumps(tokenization(result, answer.arguments["text"]))
    if isinstance(result, Chunk):
        return dumps(_generated(answer, result))
    if isinstance(result, Embeddings):
        vectors = [b'{"data": {"values": %b}}' % row for row in _rows(result.vectors)]
        if answer.task is tasks.EMBEDDING:
            return _whole(answer, b'"result": ' + vectors[0], sum(result.token_counts))
        listed = b'"results": {"vectors": [%b]}' % b", ".join(vectors)
        return _whole(answer, listed, sum(result.token_counts))
    if answer.task in (tasks.SIMILARITY, tasks.SIMILARITIES):
        found = [b'{"scores": %b}' % row for row in _rows(result.scores)]
        return _scored(answer, found, result)
    rankings = [dumps(item) for item in _rankings(answer.arguments, result)]
    return _scored(answer, rankings, result)


def _rows(matrix: NDArray[np.float32]) -> list[bytes]:
    """Write each row as a JSON list of doubles, with a space after every comma.

    orjson needs a fifth of the time of `json.dumps` and writes the same numbers; only those below
    0.0001 look otherwise (0.00001 for 1e-05).
    """
    doubles = np.ascontiguousarray(matrix, dtype=np.float64)
    option = orjson.OPT_SERIALIZE_NUMPY
    return [orjson.dumps(row, option=option).replace(b",", b", ") for row in doubles]


def _scored(answer: Answer, items: Sequence[bytes], result: Scores) -> bytes:
    if answer.task in (tasks.SIMILARITY, tasks.RERANK):
        return _whole(answer, b'"result": ' + items[0], result.token_count)
    return _whole(answer, b'"results": [%b]' % b", ".join(items), result.token_count)


def _whole(answer: Answer, result: bytes, token_count: int) -> bytes:
    producer = dumps({"name": answer.module.name, "version": answer.module.version})
    return b'{%b, "producer_id": %b, "input_token_count": %d}' % (result, producer, token_count)


def _rankings(arguments: Arguments, result: Scores) -> list[dict[str, Any]]:
    queries = arguments.get("queries") or [arguments.get("query")]
    documents = arguments["documents"]
    with_query = arguments.get("return_query", arguments.get("return_queries", True))
    with_document = arguments.get("return_documents", True)
    with_text = arguments.get("return_text", True)
    return [
        {
            "query": query if with_query else None,
            "scores": [
                {
                    "document": documents[place] if with_document else None,
                    "index": place,
                    "score": score,
                    "text": document_text(documents[place]) if with_text else None,
                }
                for place, score in ranking(row, arguments)
            ],
        }
        for query, row in zip(queries, result.scores, strict=True)
    ]


def _generated(answer: Answer, chunk: Chunk) -> dict[str, Any]:
    """Return a whole text. The seed is the one that was sent, not one that was drawn."""
    prompt = chunk.prompt
    return {
        "generated_text": chunk.text,
        "generated_tokens": chunk.generated_tokens,
        "finish_reason": reason_of(chunk),
        "producer_id": {"name": answer.module.name, "version": answer.module.version},
        "input_token_count": prompt.token_count if prompt is not None else 0,
        "seed": answer.arguments.get("seed"),
        "tokens": _tokens(chunk.tokens),
        "input_tokens": _tokens(prompt.tokens) if prompt is not None else [],
    }


def piece(chunk: Chunk) -> dict[str, Any]:
    """Return a part of a text that is streamed."""
    prompt = chunk.prompt
    return {
        "generated_text": chunk.text,
        "tokens": _tokens(chunk.tokens),
        "details": {
            "finish_reason": reason_of(chunk),
            "generated_tokens": chunk.generated_tokens,
            "seed": chunk.seed or 0,
            "input_token_count": prompt.token_count if prompt is not None else 0,
        },
        "producer_id": None,
        "input_tokens": _tokens(prompt.tokens) if prompt is not None else [],
    }


def _tokens(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    return [
        {"text": token.text, "logprob": _json_number(token.logprob), "rank": token.rank or 0}
        for token in tokens
    ]


def _json_number(logprob: float | None) -> float | None:
    """Return zero for what was not asked for, and nothing for what JSON has no number for."""
    if logprob is None:
        return 0.0
    return logprob if math.isfinite(logprob) else None


def tokenization(tokens: Tokens, text: str) -> dict[str, Any]:
    """Return the tokens that stand for a piece of the text; none where the places are not known."""
    found = None
    if tokens.offsets:
        found = [
            {"start": start, "end": end, "text": text[start:end]}
            for start, end in tokens.offsets
            if end > start
        ]
    return {"results": found, "token_count": len(tokens.ids)}


def dumps(content: Any) -> bytes:
    """Write JSON as Python does by default."""
    return json.dumps(content).encode()


def failure(message: str, status: int, request_id: str) -> dict[str, Any]:
    """Return an error of the runtime."""
    return {"details": message, "code": status, "id": request_id}


def unprocessable(error: ValidationError, request_id: str) -> bytes:
    """Render what is wrong with a body."""
    faults = error.errors()
    try:
        listed = orjson.dumps(faults)
    except orjson.JSONEncodeError:
        listed = error.json().encode()  # an integer of more than 64 bits was sent
    first: Mapping[str, Any] = faults[0]
    return b'{"details":%b,"additional_info":%b,"code":422,"id":%b}' % (
        orjson.dumps(first["msg"]),
        listed,
        orjson.dumps(request_id),
    )
