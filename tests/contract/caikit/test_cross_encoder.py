"""A cross-encoder over both transports says what the real Caikit's module said."""

import json
from typing import Any

import pytest
import pytest_asyncio

from rayserve_platform.pb.caikit_nlp_service_pb2 import RerankTasksRequest
from rayserve_platform.protocols.caikit.tasks import RERANKS
from rayserve_platform.runtimes.embedding.engine import EmbeddingRuntime
from rayserve_platform.settings.embedding import EmbeddingApp
from tests.contract.caikit.conftest import caikit, call
from tests.contract.caikit.recordings import DATA
from tests.unit.runtimes.embedding import tiny

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = {"bert": tiny.bert_cross, "roberta": tiny.roberta_cross}
RECORDED = json.loads((DATA / "cross_encoder.json").read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    models = [{"id": name, "source": str(make(root / name))} for name, make in MODELS.items()]
    settings = {"models": models, "embedding": {"backend": "torch"}}
    runtime = EmbeddingRuntime(EmbeddingApp.model_validate(settings))
    await runtime.start()
    try:
        async with caikit(runtime) as served:
            yield served
    finally:
        await runtime.stop()


@pytest.mark.parametrize("model", MODELS)
async def test_rerank_tasks_have_the_recorded_counts_and_errors(server, model):
    checked = 0
    for case in RECORDED[model]["rerank"]:
        body: dict[str, Any] = {
            "model_id": model,
            "inputs": {name: case[name] for name in ("queries", "documents")},
        }
        if "truncate_input_tokens" in case:
            body["parameters"] = {"truncate_input_tokens": case["truncate_input_tokens"]}
        answer = await server.http.post(f"/api/v1/task/{RERANKS.name}", json=body)
        told = answer.json()
        if "error" in case:
            assert (answer.status_code, told["details"]) == (400, case["error"]), case["id"]
        else:
            assert told["input_token_count"] == case["input_token_count"], case["id"]
            assert len(told["results"]) == len(case["queries"])
        checked += 1
    assert checked == 229


@pytest.mark.parametrize(("model", "code"), [("bert", "INVALID_ARGUMENT"), ("roberta", "OK")])
async def test_a_document_too_long_is_refused_where_it_is_seen_over_grpc_too(server, model, code):
    request = RerankTasksRequest(queries=["the quick fox"])
    request.documents.add().update({"text": "first second " * 60})
    sent = request.SerializeToString()
    assert await call(server, RERANKS.rpc, sent, ("mm-model-id", model)) == code


async def test_its_metadata_is_its_length_alone(server):
    # caikit-nlp 0.5.13, `CrossEncoderModule.public_model_info`.
    for model in (await server.http.get("/info/models")).json()["models"]:
        assert model["metadata"] == {"max_seq_length": 40}
        assert model["module_metadata"]["name"] == "CrossEncoderModule"
