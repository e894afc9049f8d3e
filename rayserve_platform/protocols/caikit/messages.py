"""Caikit's protobuf messages: requests to arguments, what a runtime found to answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from numpy.typing import NDArray

from rayserve_platform.core.messages import Chunk, Embeddings, Token, Tokens
from rayserve_platform.core.scores import Scores
from rayserve_platform.pb.caikit_common_pb2 import NpFloat32Sequence
from rayserve_platform.pb.caikit_nlp_results_pb2 import (
    EmbeddingResult,
    EmbeddingResults,
    RerankResult,
    RerankResults,
    RerankScores,
    SentenceSimilarityResult,
    SentenceSimilarityResults,
    SentenceSimilarityScores,
)
from rayserve_platform.pb.caikit_text_results_pb2 import (
    GeneratedTextResult,
    GeneratedTextStreamResult,
    GeneratedToken,
    TokenizationResults,
    TokenStreamDetails,
)
from rayserve_platform.protocols.caikit import tasks
from rayserve_platform.protocols.caikit.answer import Answer
from rayserve_platform.protocols.caikit.generation import reason_of
from rayserve_platform.protocols.caikit.tasks import CaikitTask
from rayserve_platform.protocols.caikit.translate import Arguments, document_text, ranking


def arguments_of(task: CaikitTask, request: Any) -> dict[str, Any]:
    """Return the arguments in a request: every text, also an empty one; lists that have something.

    Of the documents of a rerank only what may be scored is taken.
    """
    found: dict[str, Any] = {}
    for name in task.inputs:
        value = getattr(request, name)
        if isinstance(value, str):
            found[name] = value
        elif name == "documents" and value:
            found[name] = [_scorable(document) for document in value]
        elif value:
            found[name] = list(value)
    for name in task.parameters:
        if _is_sent(request, name):
            value = getattr(request, name)
            found[name] = list(value) if name == "stop_sequences" else value
    return found


def _is_sent(request: Message, name: str) -> bool:
    field = request.DESCRIPTOR.fields_by_name[name]
    return request.HasField(name) if field.has_presence else bool(getattr(request, name))


def _scorable(document: Struct) -> dict[str, Any]:
    return {name: _value(document.fields[name]) for name in ("text", "_text") if name in document}


def _value(value: Value) -> Any:
    """Return a value as Python has it: a whole number as an int, as the original takes it."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "struct_value":
        return dict(value.struct_value.fields)
    if kind == "list_value":
        return list(value.list_value.values)
    return getattr(value, kind)


def message(answer: Answer, request: Any) -> Message:
    """Render what a runtime found; documents go back as they came."""
    result = answer.result
    if isinstance(result, Tokens):
        return _tokenization(result, answer.arguments["text"])
    made: Any
    if isinstance(result, Chunk):
        made = _generated(result, answer.arguments)
    elif isinstance(result, Embeddings):
        made = _embedded(answer.task, result)
        made.input_token_count = sum(result.token_counts)
    else:
        made = _scored(answer, result, request)
        made.input_token_count = result.token_count
    made.producer_id.name = answer.module.name
    made.producer_id.version = answer.module.version
    found: Message = made
    return found


def _embedded(task: CaikitTask, result: Embeddings) -> Message:
    if task is tasks.EMBEDDING:
        single = EmbeddingResult()
        _fill(single.result.data_npfloat32sequence, result.vectors[0])
        return single
    made = EmbeddingResults()
    for row in result.vectors:
        _fill(made.results.vectors.add().data_npfloat32sequence, row)
    return made


def _fill(sequence: NpFloat32Sequence, row: NDArray[np.float32]) -> None:
    """Take a vector as the bytes that it is on the wire, instead of number by number."""
    packed = row.astype("<f4", copy=False).tobytes()
    sequence.MergeFromString(b"\x0a" + _varint(len(packed)) + packed)


def _varint(number: int) -> bytes:
    """Write a length as protobuf does: seven bits a byte, the lowest first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _scored(answer: Answer, result: Scores, request: Any) -> Message:
    rows = result.scores
    if answer.task is tasks.SIMILARITY:
        return SentenceSimilarityResult(result=SentenceSimilarityScores(scores=rows[0].tolist()))
    if answer.task is tasks.SIMILARITIES:
        return SentenceSimilarityResults(
            results=[SentenceSimilarityScores(scores=row.tolist()) for row in rows]
        )
    if answer.task is tasks.RERANK:
        single = RerankResult()
        _rank(single.result, request.query, rows[0], answer.arguments, request)
        return single
    made = RerankResults()
    for query, row in zip(request.queries, rows, strict=True):
        _rank(made.results.add(), query, row, answer.arguments, request)
    return made


def _rank(
    made: RerankScores, query: str, row: NDArray[np.float32], arguments: Arguments, request: Any
) -> None:
    if arguments.get("return_query", arguments.get("return_queries", True)):
        made.query = query
    with_document = arguments.get("return_documents", True)
    with_text = arguments.get("return_text", True)
    for place, score in ranking(row, arguments):
        item = made.scores.add(index=place, score=score)
        if with_document:
            item.document.CopyFrom(request.documents[place])
        if with_text:
            item.text = document_text(arguments["documents"][place])


def _generated(chunk: Chunk, arguments: Arguments) -> Message:
    prompt = chunk.prompt
    return GeneratedTextResult(
        generated_text=chunk.text,
        generated_tokens=chunk.generated_tokens,
        finish_reason=reason_of(chunk),
        input_token_count=prompt.token_count if prompt is not None else 0,
        seed=arguments.get("seed", 0),
        tokens=_tokens(chunk.tokens),
        input_tokens=_tokens(prompt.tokens) if prompt is not None else (),
    )


def piece(chunk: Chunk) -> GeneratedTextStreamResult:
    """Render a part of a text that is streamed."""
    prompt = chunk.prompt
    return GeneratedTextStreamResult(
        generated_text=chunk.text,
        tokens=_tokens(chunk.tokens),
        details=TokenStreamDetails(
            finish_reason=reason_of(chunk),
            generated_tokens=chunk.generated_tokens,
            seed=chunk.seed or 0,
            input_token_count=prompt.token_count if prompt is not None else 0,
        ),
        input_tokens=_tokens(prompt.tokens) if prompt is not None else (),
    )


def _tokens(tokens: Sequence[Token]) -> list[GeneratedToken]:
    return [
        GeneratedToken(text=token.text, logprob=token.logprob or 0.0, rank=token.rank or 0)
        for token in tokens
    ]


def _tokenization(result: Tokens, text: str) -> Message:
    made = TokenizationResults(token_count=len(result.ids))
    for start, end in result.offsets:
        if end > start:
            made.results.add(start=start, end=end, text=text[start:end])
    return made
