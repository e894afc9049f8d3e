"""Bodies of the right shape with values that no client should send, and forms and messages."""

import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.pb.caikit_nlp_service_pb2 import (
    EmbeddingTasksRequest,
    RerankTaskRequest,
    RerankTasksRequest,
)
from rayserve_platform.protocols.caikit.tasks import EMBEDDINGS, RERANK, RERANKS, TASKS
from tests.contract.caikit.conftest import MODEL, call
from tests.contract.caikit.hostile import in_this_loop, post, still_well

NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-0.0", "1E5", "2147483648", "9223372036854775808"),
    *("-9223372036854775809", "18446744073709551616", "9" * 4299, "9" * 4301, "-" + "9" * 4299),
)
ODD = (
    *NUMBERS,
    *("null", "true", "[]", "{}", '""', "[null]", "[[]]", "[1]", '[""]', "[{}]", '{"":""}'),
    *(r'"\ud800"', r'"\ude00\ud83d"', r'"\u0000"', r'{"\ud800":1}', '"\u2028"', '" "', '"3.0"'),
    *("[" * n + "]" * n for n in (50, 199, 200, 201, 255, 1000, 20_000)),
    *('{"a":' * n + "1" + "}" * n for n in (50, 199, 200, 201, 255, 1000, 20_000)),
    *("", "}", "'a'", "NULL", "1_0", "0x1", "+1", '"a\tb"', '1,"inputs":2', "/**/1"),
)
PLACES = {
    "inputs": '{"model_id":"%s","inputs":@}',
    "model_id": '{"inputs":"a","model_id":@,"model_id":"%s"}',
    "parameters": '{"model_id":"%s","inputs":"a","parameters":@}',
    "truncate": '{"model_id":"%s","inputs":"a","parameters":{"truncate_input_tokens":@}}',
    "document": '{"model_id":"%s","inputs":{"query":"a","documents":[{"text":"a","x":@}]}}',
    "text": '{"model_id":"%s","inputs":{"query":"a","documents":[{"text":@,"_text":@}]}}',
    "documents": '{"model_id":"%s","inputs":{"query":"a","queries":["a"],"documents":@}}',
    "queries": '{"model_id":"%s","inputs":{"queries":@,"documents":[{"text":"a"}]}}',
    "sources": '{"model_id":"%s","inputs":{"source_sentence":@,"sentences":["a"]}}',
    "sentences": '{"model_id":"%s","inputs":{"source_sentences":["a"],"sentences":@}}',
    "top_n": '{"model_id":"%s","inputs":{"query":"a","documents":[{}]},"parameters":{"top_n":@}}',
    "flag": '{"model_id":"%s","inputs":{"query":"a","documents":[{}]},'
    '"parameters":{"return_text":@}}',
    "unknown": '{"model_id":"%s","inputs":"a","x":@,"x":@}',
    "name": '{"model_id":"%s","inputs":"a",@:1}',
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_value_that_none_should_send_is_answered_or_refused_anywhere(fake, place):
    server = await fake()
    for value in ODD:
        body = (PLACES[place] % MODEL).replace("@", value).encode()
        for task in TASKS:
            answer = await post(server, f"/api/v1/task/{task.name}", body)
            # Above 4 KiB what is wrong may be told several times, but not for each of its bytes.
            assert len(answer.content) < 20 * len(body) + 20_000
    await still_well(server)


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["model_id", "inputs", "inputs.query", "inputs.documents", "parameters"])
        | st.sampled_from(
            ["inputs.texts", "parameters.top_n", "a.b.c.d.e", ".", "..", "", "inputs."]
        )
        | st.text(max_size=10),
        st.just(MODEL)
        | st.sampled_from(["1", "NaN", "[]", '[{"text":"a"}]'])
        | st.text(max_size=9),
        st.sampled_from(["", "; filename=a", "; filename*=UTF-8''%ff", "; charset=utf-7"]),
    ),
    max_size=6,
)
KINDS = st.sampled_from(["", "; charset=utf-8", "; charset=none", "; charset=utf-16", ";;", "; x"])


async def test_any_form_is_answered_or_refused(fake):
    server = await fake()

    @given(task=st.sampled_from(TASKS), fields=FIELDS, kind=KINDS)
    @settings(max_examples=300)
    async def check(task: Any, fields: Any, kind: str) -> None:
        body = b"".join(
            b'--b\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
            % (name.encode(), more.encode(), value.encode())
            for name, value, more in fields
        )
        kind = f"multipart/form-data{kind}; boundary=b"
        await post(server, f"/api/v1/task/{task.name}", body + b"--b--\r\n", kind)

    await in_this_loop(check)
    await still_well(server)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
DOCUMENTS = st.lists(
    st.dictionaries(st.sampled_from(["text", "_text", "x", ""]), VALUES, max_size=4), max_size=4
)
INT64 = st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)


async def test_any_documents_over_grpc_are_answered_or_refused(fake):
    server = await fake()

    @given(query=st.text(max_size=9), documents=DOCUMENTS, top_n=INT64, truncate=INT64)
    @settings(max_examples=200)
    async def check(query: str, documents: Any, top_n: int, truncate: int) -> None:
        made = [Struct() for _ in documents]
        for struct, document in zip(made, documents, strict=True):
            struct.update(document)
        numbers: Any = {"top_n": top_n, "truncate_input_tokens": truncate}
        one = RerankTaskRequest(query=query, documents=made, **numbers)
        several = RerankTasksRequest(queries=[query, query], documents=made, **numbers)
        for rpc, request in ((RERANK.rpc, one), (RERANKS.rpc, several)):
            found = await call(server, rpc, request.SerializeToString())
            assert found in {"OK", "INVALID_ARGUMENT"}

    await in_this_loop(check)
    await still_well(server)


async def test_a_small_request_for_a_huge_answer_is_refused_over_both_transports(fake):
    server = await fake(dimension=384)
    texts = [""] * 100_000
    queries = [""] * 3_000
    documents: list[dict[str, str]] = [{}] * 3_000
    for task, inputs, request in (
        (EMBEDDINGS, texts, EmbeddingTasksRequest(texts=texts)),
        (
            RERANKS,
            {"queries": queries, "documents": documents},
            RerankTasksRequest(queries=queries, documents=[Struct()] * 3_000),
        ),
    ):
        body = json.dumps({"model_id": MODEL, "inputs": inputs}).encode()
        answer = await post(server, f"/api/v1/task/{task.name}", body)
        assert answer.status_code == 400
        assert "send fewer texts" in answer.json()["details"]
        assert await call(server, task.rpc, request.SerializeToString()) == "INVALID_ARGUMENT"
    await still_well(server)
