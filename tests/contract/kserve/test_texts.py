"""Models of texts by inference, and `generate`, over REST and gRPC."""

import json

import numpy as np
import pytest

from rayserve_platform.core.messages import Embed, Generate
from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.fake import FakeApp, FakeEngine
from tests.conftest import fake_runtime

GENERATE = "/v2/models/llm/generate"


def llm(**engine):
    return fake_runtime(id="llm", tasks=("generate",), **engine)


def encoder(**engine):
    return fake_runtime(id="encoder", tasks=("embed",), dimension=3, **engine)


def text_input(*texts: str, name: str) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(
        name=name,
        datatype="BYTES",
        shape=[len(texts)],
        contents=pb.InferTensorContents(bytes_contents=[text.encode() for text in texts]),
    )


async def test_an_embedding_model_infers_vectors_from_texts(serve):
    runtime = encoder()
    running = await serve(runtime)
    described = (await running.http.get("/v2/models/encoder")).json()
    assert described["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert described["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 3]}]
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "bé"]}
    found = await running.http.post("/v2/models/encoder/infer", json={"inputs": [tensor]})
    (output,) = found.json()["outputs"]
    want = await runtime.embed(Embed(model="encoder", inputs=("a", "bé")))
    assert output["shape"] == [2, 3]
    np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(2, 3), want.vectors)


async def test_parameters_of_an_embedding_reach_the_runtime(serve):
    runtime = encoder()
    running = await serve(runtime)
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["abc"]}
    asked = {"inputs": [tensor], "parameters": {"truncate_tokens": 2, "dimensions": 3}}
    assert (await running.http.post("/v2/models/encoder/infer", json=asked)).status_code == 200
    assert (runtime.seen[-1].truncate_tokens, runtime.seen[-1].dimensions) == (2, 3)
    asked["parameters"] = {"truncate_tokens": 0}
    found = await running.http.post("/v2/models/encoder/infer", json=asked)
    assert found.status_code == 400
    assert "'truncate_tokens'" in found.json()["error"]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"shape": [0], "data": []}, "Input 'text': expected at least one text, got none."),
        (
            {"data": ["abcdef"]},
            "Input 'text' at index 0: longer than this model's maximum of 5 tokens.",
        ),
        ({"name": "text_input"}, "Unknown input 'text_input'; expected 'text'."),
        (
            {"datatype": "FP32", "data": [1]},
            "Input 'text': expected datatype BYTES, got FP32.",
        ),
    ],
)
async def test_texts_that_do_not_fit_are_refused(serve, tensor, message):
    running = await serve(encoder(max_model_len=5))
    whole = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"], **tensor}
    found = await running.http.post("/v2/models/encoder/infer", json={"inputs": [whole]})
    assert (found.status_code, found.json()["error"]) == (400, message)


async def test_a_model_that_only_scores_answers_no_inference(serve):
    running = await serve(fake_runtime(id="cross", tasks=("score",)))
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    found = await running.http.post("/v2/models/cross/infer", json={"inputs": [tensor]})
    assert found.status_code == 400
    assert found.json() == {"error": "The model 'cross' answers no inference."}


async def test_text_is_generated_whole_and_in_parts_and_by_inference_alike(serve):
    running = await serve(llm())
    asked = {"text_input": "Once", "id": "7", "parameters": {"max_tokens": 6, "temperature": 0}}
    whole = (await running.http.post(GENERATE, json=asked)).json()
    assert (whole["model_name"], whole["model_version"], whole["id"]) == ("llm", "1", "7")
    assert len(whole["text_output"]) == 6
    async with running.http.stream("POST", GENERATE + "_stream", json=asked) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in answer.aiter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(event["text_output"] for event in events) == whole["text_output"]
    assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Once"]}
    inferred = await running.http.post(
        "/v2/models/llm/infer",
        json={"inputs": [tensor], "parameters": {"max_tokens": 6, "temperature": 0}},
    )
    assert inferred.json()["outputs"][0]["data"] == [whole["text_output"]]


async def test_parameters_are_taken_beside_the_text_as_well(serve):
    runtime = llm()
    running = await serve(runtime)
    await running.http.post(
        GENERATE,
        json={"text_input": "a", "max_tokens": 3, "stop": "x", "seed": 5, "stream": False},
    )
    request = runtime.seen[-1]
    assert isinstance(request, Generate)
    assert (request.stopping.max_new_tokens, request.stopping.stop_sequences) == (3, ("x",))
    assert request.sampling.seed == 5
    await running.http.post(GENERATE, json={"text_input": "a"})
    assert runtime.seen[-1].stopping.max_new_tokens == 20


async def test_details_tell_why_a_text_ended_and_its_tokens(serve):
    running = await serve(llm())
    asked = {"text_input": "a", "parameters": {"details": True, "max_tokens": 2}}
    details = (await running.http.post(GENERATE, json=asked)).json()["details"]
    assert details["finish_reason"] == "length"
    assert len(details["logprobs"]) == 2
    assert details["logprobs"][0].keys() == {"id", "text", "logprob"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "'text_input' is required"),
        ({"text_input": 5}, "'text_input' is required"),
        ({"text_input": "a", "parameters": 5}, "'parameters' must be an object"),
        ({"text_input": "a", "colour": "red"}, "Unknown parameter 'colour'"),
        ({"text_input": "a", "temperature": -1}, "'temperature' must be a number from 0"),
        ({"text_input": "a", "max_tokens": 0}, "'max_tokens' must be a whole number from 1"),
        ({"text_input": "a", "max_tokens": 2.5}, "'max_tokens' must be a whole number"),
        ({"text_input": "a", "top_p": True}, "'top_p' must be a number from 0 to 1"),
        ({"text_input": "a", "stop": [1]}, "'stop' must be a text or a list of texts"),
        ({"text_input": "a", "stream": True}, "generate_stream in parts"),
        ({"text_input": "a", "stream": []}, "'stream' must be true or false"),
        ({"text_input": "a", "stream": 0}, "'stream' must be true or false"),
        ({"text_input": "a", "parameters": {"stream": {}}}, "'stream' must be true or false"),
        ({"text_input": "a", "id": 5}, "'id' must be a string"),
    ],
)
async def test_what_can_not_be_generated_is_refused_by_name(serve, asked, words):
    running = await serve(llm())
    found = await running.http.post(GENERATE, json=asked)
    assert found.status_code == 400
    assert words in found.json()["error"]


async def test_only_a_model_that_writes_text_generates(serve):
    running = await serve(encoder())
    for path in ("generate", "generate_stream"):
        found = await running.http.post(f"/v2/models/encoder/{path}", json={"text_input": "a"})
        assert found.status_code == 400
        assert found.json() == {"error": "The model 'encoder' does not generate text."}


async def test_a_failure_after_the_first_part_ends_the_stream_with_an_error(serve):
    runtime = llm(fail_after_tokens=2, token_s=0.01)
    running = await serve(runtime)
    answer = await running.http.post(GENERATE + "_stream", json={"text_input": "a"})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert answer.status_code == 200
    assert events[-1] == {"error": "internal error"}
    assert runtime.running == 0


async def test_a_generation_without_a_part_is_an_empty_stream(serve):
    class Silent(FakeRuntime):
        """A fake engine that has nothing to say."""

        async def generate(self, request):
            return
            yield

    settings = FakeApp(model=Model(id="llm"), fake=FakeEngine(tasks=("generate",)))
    running = await serve(Silent(settings))
    found = await running.http.post(GENERATE + "_stream", json={"text_input": "a"})
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-type"].startswith("text/event-stream")


async def test_a_failure_before_the_first_part_is_a_plain_error(serve):
    running = await serve(llm(fail_after_tokens=0))
    answer = await running.http.post(GENERATE + "_stream", json={"text_input": "a"})
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})


async def test_a_client_that_leaves_ends_the_generation(serve, eventually):
    runtime = llm(token_s=0.05)
    running = await serve(runtime)
    asked = {"text_input": "a", "max_tokens": 4000, "ignore_eos": True}
    async with running.http.stream("POST", GENERATE + "_stream", json=asked) as answer:
        await anext(answer.aiter_lines())
        assert runtime.running == 1
    await eventually(lambda: runtime.running == 0)


async def test_grpc_streams_the_parts_of_a_text_and_marks_the_last(serve):
    running = await serve(llm())
    stub = GRPCInferenceServiceStub(running.channel)
    asked = pb.ModelInferRequest(
        model_name="llm", id="7", inputs=[text_input("Once", name="text_input")]
    )
    asked.parameters["max_tokens"].int64_param = 5
    whole = await stub.ModelInfer(asked)
    answers = [item.infer_response async for item in stub.ModelStreamInfer(iter([asked, asked]))]
    assert {answer.id for answer in answers} == {"7"}
    finals = [answer.parameters["triton_final_response"].bool_param for answer in answers]
    half = len(answers) // 2
    assert finals == ([False] * (half - 1) + [True]) * 2
    parts = [answer.outputs[0].contents.bytes_contents[0] for answer in answers[:half]]
    assert b"".join(parts) == whole.outputs[0].contents.bytes_contents[0]
    assert len(parts) > 1


async def test_an_error_in_a_grpc_stream_is_told_and_the_next_request_answered(serve):
    running = await serve(llm(fail_after_tokens=3))
    stub = GRPCInferenceServiceStub(running.channel)
    asked = pb.ModelInferRequest(
        model_name="llm", id="1", inputs=[text_input("a", name="text_input")]
    )
    short = pb.ModelInferRequest()
    short.CopyFrom(asked)
    short.parameters["max_tokens"].int64_param = 2
    answers = [item async for item in stub.ModelStreamInfer(iter([asked, short]))]
    errors = [item.error_message for item in answers if item.error_message]
    assert errors == ["internal error"]
    assert answers[-1].infer_response.parameters["triton_final_response"].bool_param
