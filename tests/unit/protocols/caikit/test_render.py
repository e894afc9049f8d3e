"""Answers as bytes and messages."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from rayserve_platform.core.messages import Embeddings, Tokens
from rayserve_platform.core.scores import Scores
from rayserve_platform.pb.caikit_nlp_service_pb2 import (
    EmbeddingTaskRequest,
    RerankTaskRequest,
    TokenizationTaskRequest,
)
from rayserve_platform.protocols.caikit import messages, render, tasks
from rayserve_platform.protocols.caikit.answer import Answer

VECTORS = np.random.default_rng(7).normal(size=(3, 384)).astype(np.float32)


def message(answer: Answer, request: Any) -> Any:
    return messages.message(answer, request)


def made(task, result, **arguments) -> Answer:
    return Answer(task=task, arguments=arguments, module=tasks.EMBEDDING_MODULE, result=result)


def test_a_vector_over_http_is_written_as_python_writes_it():
    answer = made(tasks.EMBEDDINGS, Embeddings(vectors=VECTORS, token_counts=(3, 4, 5)))
    values = [{"data": {"values": row}} for row in VECTORS.astype(np.float64).tolist()]
    expected = {
        "results": {"vectors": values},
        "producer_id": {"name": "EmbeddingModule", "version": "0.0.1"},
        "input_token_count": 12,
    }
    written = render.body(answer)
    assert json.loads(written) == expected
    large = json.dumps(expected).encode()
    assert written.count(b", ") == large.count(b", ")
    assert b" " not in written.replace(b", ", b",").replace(b": ", b":")


@pytest.mark.parametrize("layout", ["C", "F", "reversed"])
def test_a_vector_over_grpc_is_the_same_numbers_however_it_lies_in_memory(layout):
    vectors = VECTORS[:, ::-1] if layout == "reversed" else np.asarray(VECTORS, order=layout)
    answer = made(tasks.EMBEDDINGS, Embeddings(vectors=vectors, token_counts=(1, 1, 1)))
    found = message(answer, None)
    for row, vector in zip(vectors, found.results.vectors, strict=True):
        assert vector.WhichOneof("data") == "data_npfloat32sequence"
        assert list(vector.data_npfloat32sequence.values) == row.tolist()


@pytest.mark.parametrize("size", [1, 31, 32, 4096, 70_000])
def test_vectors_of_any_length_are_read_back(size):
    vectors = np.arange(size, dtype=np.float32).reshape(1, size)
    answer = made(tasks.EMBEDDING, Embeddings(vectors=vectors, token_counts=(1,)))
    found = message(answer, EmbeddingTaskRequest())
    sent = type(found).FromString(found.SerializeToString())
    assert list(sent.result.data_npfloat32sequence.values) == vectors[0].tolist()
    assert struct.pack(f"<{size}f", *vectors[0]) in found.SerializeToString()


def test_documents_come_back_over_grpc_as_they_were_sent():
    document = Struct()
    document.update({"text": "a", "n": 12345678901234567890.0, "l": [None, True, {"x": 1.5}]})
    request = RerankTaskRequest(query="q", documents=[document], return_text=False)
    arguments = messages.arguments_of(tasks.RERANK, request)
    assert arguments == {"query": "q", "documents": [{"text": "a"}], "return_text": False}
    scores = Scores(scores=np.array([[0.5]], dtype=np.float32), token_count=4)
    found = message(made(tasks.RERANK, scores, **arguments), request)
    (item,) = found.result.scores
    assert item.document == document
    assert (found.result.query, item.text, item.score) == ("q", "", 0.5)


def test_an_optional_field_is_an_argument_only_when_it_was_sent():
    assert messages.arguments_of(tasks.EMBEDDING, EmbeddingTaskRequest()) == {"text": ""}
    sent = EmbeddingTaskRequest(text="x", truncate_input_tokens=0)
    assert messages.arguments_of(tasks.EMBEDDING, sent) == {"text": "x", "truncate_input_tokens": 0}
    assert messages.arguments_of(tasks.TOKENIZATION, TokenizationTaskRequest()) == {"text": ""}


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (Value(), None),
        (Value(null_value=0), None),  # type: ignore[arg-type]
        (Value(number_value=5), 5),
        (Value(number_value=5.5), 5.5),
        (Value(bool_value=True), True),
        (Value(string_value="a"), "a"),
        (Value(list_value=ListValue(values=[Value(number_value=1)])), [Value(number_value=1)]),
        (Value(struct_value=Struct(fields={"a": Value()})), {"a": Value()}),
    ],
)
def test_a_documents_text_is_taken_as_the_value_that_it_is(value, taken):
    request = RerankTaskRequest(documents=[Struct(fields={"text": value})])
    (document,) = messages.arguments_of(tasks.RERANK, request)["documents"]
    assert document == {"text": taken}
    assert type(document["text"]) is type(taken)


def test_numbers_that_are_none_are_told_as_the_type_they_have():
    request = RerankTaskRequest(documents=[Struct(fields={"text": Value(number_value=np.inf)})])
    (document,) = messages.arguments_of(tasks.RERANK, request)["documents"]
    assert type(document["text"]) is float


def test_tokens_without_places_are_counted_alone():
    answer = made(tasks.TOKENIZATION, Tokens(ids=(1, 2, 3)), text="abc")
    assert render.body(answer) == b'{"results": null, "token_count": 3}'
    found = message(answer, None)
    assert (len(found.results), found.token_count) == (0, 3)


def test_tokens_that_stand_for_no_text_are_left_out():
    tokens = Tokens(ids=(101, 5, 102), offsets=((0, 0), (0, 3), (0, 0)))
    answer = made(tasks.TOKENIZATION, tokens, text="é漢c")
    assert json.loads(render.body(answer)) == {
        "results": [{"start": 0, "end": 3, "text": "é漢c"}],
        "token_count": 3,
    }
    assert b"\\u6f22" in render.body(answer)
