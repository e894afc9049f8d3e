"""Whatever is sent, the answer is the caller's to understand, and the next request works."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.protocols.caikit.tasks import TASKS
from tests.contract.caikit.conftest import MODEL, call
from tests.contract.caikit.hostile import in_this_loop, is_refused, post, still_well

PATHS = [f"/api/v1/task/{task.name}" for task in TASKS]
GET_PATHS = ["/info/models", "/info/version", "/info/runtime", "/health", "/docs", "/openapi.json"]
NAMES = sorted({name for task in TASKS for name in (*task.inputs, *task.parameters)})
TEXTS = st.text(max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)
FIELDS = st.dictionaries(st.sampled_from(NAMES) | TEXTS, JSON, max_size=6)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "model_id": st.just(MODEL) | JSON,
        "inputs": FIELDS | JSON,
        "parameters": FIELDS | JSON,
        "other": JSON,
    },
)


async def test_random_json_is_answered_or_refused(fake):
    server = await fake()

    @given(path=st.sampled_from(PATHS), body=BODIES | JSON)
    @settings(max_examples=400)
    async def check(path: str, body: Any) -> None:
        await post(server, path, json.dumps(body).encode())

    await in_this_loop(check)
    await still_well(server)


async def test_random_bytes_are_refused(fake):
    server = await fake()
    kinds = st.sampled_from(
        ["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain"]
    )

    @given(path=st.sampled_from(PATHS), body=st.binary(max_size=200), kind=kinds)
    @settings(max_examples=200)
    async def check(path: str, body: bytes, kind: str) -> None:
        assert is_refused(await post(server, path, body, kind))

    await in_this_loop(check)
    await still_well(server)


async def test_any_texts_that_are_allowed_are_answered(fake):
    server = await fake()
    inputs = st.fixed_dictionaries(
        {
            "query": TEXTS,
            "documents": st.lists(
                st.dictionaries(TEXTS, JSON, max_size=3), min_size=1, max_size=4
            ).map(lambda docs: [{**doc, "text": "a", "_text": "b"} for doc in docs]),
        }
    )

    @given(inputs=inputs, top_n=st.integers(-3, 10), keep=st.booleans())
    @settings(max_examples=100)
    async def check(inputs: Any, top_n: int, keep: bool) -> None:
        parameters = {"top_n": top_n, "return_documents": keep}
        body = {"model_id": MODEL, "inputs": inputs, "parameters": parameters}
        answer = await post(server, "/api/v1/task/rerank", json.dumps(body).encode())
        assert answer.status_code == 200
        found = json.loads(answer.text)["result"]
        count = len(inputs["documents"])
        assert len(found["scores"]) == (min(top_n, count) if top_n > 0 else count)
        for item in found["scores"]:
            sent = inputs["documents"][item["index"]] if keep else None
            assert json.dumps(item["document"]) == json.dumps(sent)

    await in_this_loop(check)


HUGE = {
    "texts too long": json.dumps({"model_id": MODEL, "inputs": ["word " * 200_000]}).encode(),
    "very deep": b"[" * 100_000,
    "deep in a document": b'{"inputs":{"query":"x","documents":[' + b'{"a":' * 5000,
    "a number of many digits": b'{"inputs":' + b"9" * 100_000 + b"}",
    "very many fields": json.dumps({str(i): i for i in range(50_000)}).encode(),
    "very many inputs": json.dumps(
        {"inputs": {str(i): i for i in range(50_000)}, "model_id": MODEL}
    ).encode(),
    "very many faults": json.dumps({"inputs": [1] * 200_000, "model_id": MODEL}).encode(),
    "half a pair": b'{"model_id":"\\ud800","inputs":"x"}',
    "a zero byte": b'{"model_id":"\\u0000","inputs":"x"}',
    "not UTF-8": b'{"model_id":"\xff\xfe","inputs":"x"}',
    "a mark of order": b'\xef\xbb\xbf{"model_id":"m","inputs":"x"}',
    "not a number": b'{"model_id":NaN,"inputs":1e400,"parameters":{"top_k":-1e400}}',
}


@pytest.mark.parametrize("name", HUGE)
async def test_a_huge_or_hostile_body_is_refused_briefly(fake, name):
    server = await fake()
    for path in PATHS:
        answer = await post(server, path, HUGE[name])
        assert is_refused(answer)
        # What was sent may be told back once, not many times.
        assert len(answer.content) < 2 * len(HUGE[name]) + 2000
    await still_well(server)


async def test_a_body_over_the_limit_is_413(fake):
    server = await fake(ingress={"limits": {"max_body_mib": 0.01}})
    answer = await post(server, PATHS[0], b" " * 20_000)
    assert answer.status_code == 413
    await still_well(server)


@pytest.mark.parametrize("path", [*PATHS, *GET_PATHS])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "TRACE", "POST"])
async def test_a_method_that_a_path_lacks_is_405(fake, path, method):
    server = await fake()
    allowed = "GET" if path in GET_PATHS else "POST"
    answer = await server.http.request(method, path)
    if method == allowed:
        assert answer.status_code == (200 if allowed == "GET" else 415)
    else:
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_a_hostile_question_about_models_is_answered(fake):
    server = await fake()
    for query, status in (
        ("model_ids=", 404),
        ("model_ids=%ff%00", 404),
        ("model_ids=" + "x" * 8000, 404),
        ("other=1&&=&%", 200),
    ):
        answer = await server.http.get(f"/info/models?{query}")
        assert answer.status_code == status
        assert len(answer.content) < 1000


GRPC_BAD = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "UNKNOWN"})
"""UNKNOWN: bytes that the gRPC server itself can't decode."""


async def test_random_messages_are_answered_or_refused(fake):
    server = await fake()
    field = st.tuples(st.integers(1, 9), st.sampled_from([0, 2]), st.binary(max_size=30))
    messages = st.lists(field, max_size=5).map(
        lambda fields: b"".join(
            bytes([number << 3 | kind])
            + (bytes([len(data)]) + data if kind == 2 else bytes([len(data)]))
            for number, kind, data in fields
        )
    )

    @given(task=st.sampled_from(TASKS), body=messages | st.binary(max_size=60))
    @settings(max_examples=300)
    async def check(task: Any, body: bytes) -> None:
        assert await call(server, task.rpc, body) in GRPC_BAD | {"OK"}

    await in_this_loop(check)
    await still_well(server)


async def test_random_names_of_models_are_not_found(fake):
    server = await fake()
    printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)

    @given(name=printable)
    @settings(max_examples=60)
    async def check(name: str) -> None:
        found = await call(server, TASKS[0].rpc, b"", ("mm-model-id", name))
        assert found == "NOT_FOUND"

    await in_this_loop(check)


async def test_a_message_over_the_limit_is_resource_exhausted(fake):
    server = await fake()
    text = b"x" * (5 * 2**20)
    body = b"\x0a" + b"\x80\x80\xc0\x02" + text
    assert await call(server, TASKS[0].rpc, body) == "RESOURCE_EXHAUSTED"
    await still_well(server)
