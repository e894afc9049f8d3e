import json

import pytest

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.embedding import LOADS, MODEL_ID, TaskLoad, task_call
from rayserve_platform.bench.rpc import RpcCall
from rayserve_platform.bench.sentences import sentences
from rayserve_platform.pb import caikit_nlp_service_pb2 as nlp

BY_LABEL = {load.label: load for load in LOADS}


def call_of(label: str) -> Call | RpcCall:
    return task_call(BY_LABEL[label], url="http://h:1", target="h:2", timeout_s=3)


def test_sentences_repeat_with_the_seed_and_differ_among_themselves():
    made = sentences(500)
    assert made == sentences(500)
    assert made != sentences(500, seed=8)
    assert len(set(made)) == 500
    assert {len(sentence.split()) for sentence in made} == {20}


def test_every_load_is_named_apart():
    assert len(BY_LABEL) == len(LOADS) == 11


def test_rest_requests_are_caikits():
    call = call_of("REST embedding c=8")
    assert isinstance(call, Call)
    assert (call.url, call.openai) == ("http://h:1/api/v1/task/embedding", False)
    assert json.loads(call.bodies[0]) == {"model_id": MODEL_ID, "inputs": sentences(1)[0]}
    batches = call_of("REST embedding-tasks 32 c=1")
    assert json.loads(batches.bodies[1])["inputs"] == list(sentences(64)[32:])
    rerank = json.loads(call_of("REST rerank 32 c=1").bodies[0])["inputs"]
    assert rerank["query"] == sentences(1)[0]
    assert [document["text"] for document in rerank["documents"]] == list(sentences(33)[1:])


def test_grpc_requests_are_caikits():
    single = call_of("gRPC embedding c=1")
    assert isinstance(single, RpcCall)
    assert single.target == "h:2"
    assert single.metadata == {"mm-model-id": MODEL_ID}
    assert nlp.EmbeddingTaskRequest.FromString(single.bodies[0]).text == sentences(1)[0]
    batches = call_of("gRPC embedding-tasks 32 c=8")
    asked = nlp.EmbeddingTasksRequest.FromString(batches.bodies[1])
    assert tuple(asked.texts) == sentences(64)[32:]
    service = nlp.DESCRIPTOR.services_by_name["NlpService"]
    for call, message in ((single, "EmbeddingTaskRequest"), (batches, "EmbeddingTasksRequest")):
        assert isinstance(call, RpcCall)
        _, name, method = call.method.split("/")
        assert name == service.full_name
        assert service.methods_by_name[method].input_type.name == message


def test_the_same_texts_go_over_both_transports():
    rest, rpc = call_of("REST embedding c=1"), call_of("gRPC embedding c=1")
    asked = [json.loads(body)["inputs"] for body in rest.bodies]
    assert asked == [nlp.EmbeddingTaskRequest.FromString(body).text for body in rpc.bodies]


@pytest.mark.parametrize(
    ("load", "ceiling"),
    [
        (TaskLoad(task="embedding", transport="REST", concurrency=1), "batches of 1"),
        (TaskLoad(task="embedding", transport="gRPC", concurrency=31), "batches of 8"),
        (TaskLoad(task="embedding", transport="gRPC", concurrency=32), "batches of 32"),
        (TaskLoad(task="rerank", transport="REST", concurrency=1), "batches of 32"),
    ],
)
def test_ceiling_has_no_more_texts_at_once_than_the_load(load: TaskLoad, ceiling: str):
    assert load.ceiling == ceiling
