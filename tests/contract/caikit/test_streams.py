"""Streams of text: when events come, how they end, and what a client that leaves does."""

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from rayserve_platform.core.cards import Adapter
from rayserve_platform.core.messages import Generate
from rayserve_platform.pb.caikit_nlp_service_pb2 import ServerStreamingTextGenerationTaskRequest
from rayserve_platform.pb.caikit_nlp_service_pb2_grpc import NlpServiceStub
from tests.conftest import fake_runtime
from tests.contract.caikit.conftest import LLM, caikit, call
from tests.contract.caikit.recordings import content

UNARY = "/api/v1/task/text-generation"
STREAM = "/api/v1/task/server-streaming-text-generation"
RPC = "ServerStreamingTextGenerationTaskPredict"
ENDLESS: dict[str, Any] = {"max_new_tokens": 1000, "min_new_tokens": 1000}


def body(text: str = "hi", **parameters: Any) -> dict[str, Any]:
    return {"model_id": LLM, "inputs": text, "parameters": parameters}


async def test_a_stream_and_a_whole_answer_say_the_same():
    asked = body(
        max_new_tokens=9, min_new_tokens=9, preserve_input_text=True, generated_tokens=True
    )
    async with caikit(fake_runtime(id=LLM)) as server:
        whole = (await server.http.post(UNARY, json=asked)).json()
        events = content((await server.http.post(STREAM, json=asked)).text)
        pieces = [piece for kind, piece in events if kind == "event: message"]
        assert len(pieces) == len(events) == 10
        assert "".join(piece["generated_text"] for piece in pieces) == whole["generated_text"]
        assert [t for piece in pieces for t in piece["tokens"]] == whole["tokens"]
        assert [piece["details"]["generated_tokens"] for piece in pieces] == list(range(10))
        assert pieces[0]["details"]["input_token_count"] == whole["input_token_count"] == 2
        assert pieces[-1]["details"]["finish_reason"] == whole["finish_reason"] == "MAX_TOKENS"


async def test_the_head_of_a_stream_does_not_wait_for_the_first_token(eventually):
    runtime = fake_runtime(id=LLM, first_token_s=3600)
    async with (
        caikit(runtime, ping_s=0.05) as server,
        server.http.stream("POST", STREAM, json=body()) as answer,
    ):
        assert answer.status_code == 200
        pings = ""
        async for text in answer.aiter_text():
            pings += text
            if pings.count("ping") >= 2:
                break
        whole = r": ping - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00\r\n\r\n"
        assert re.fullmatch(f"({whole})+", pings)
        assert runtime.running == 1
    await eventually(lambda: runtime.running == 0)


async def test_a_stream_with_enough_to_say_is_not_interrupted_by_comments():
    async with caikit(fake_runtime(id=LLM), ping_s=30) as server:
        answer = await server.http.post(STREAM, json=body(**ENDLESS))
        assert "ping" not in answer.text
        assert len(content(answer.text)) == 1001


async def test_a_client_that_leaves_a_stream_ends_it_in_the_engine(eventually):
    runtime = fake_runtime(id=LLM, token_s=0.01)
    async with caikit(runtime) as server:
        async with server.http.stream("POST", STREAM, json=body(**ENDLESS)) as answer:
            await anext(answer.aiter_lines())
            assert runtime.running == 1
        await eventually(lambda: runtime.running == 0)


async def test_a_client_that_leaves_a_whole_answer_ends_it_in_the_engine(eventually):
    runtime = fake_runtime(id=LLM, token_s=0.01)
    async with caikit(runtime) as server:
        asking = asyncio.create_task(server.http.post(UNARY, json=body(**ENDLESS)))
        await eventually(lambda: runtime.running == 1)
        asking.cancel()
        await eventually(lambda: runtime.running == 0)


async def test_a_cancelled_call_ends_in_the_engine(eventually):
    runtime = fake_runtime(id=LLM, token_s=0.01)
    async with caikit(runtime) as server:
        request = ServerStreamingTextGenerationTaskRequest(text="hi", **ENDLESS)
        stub: Any = NlpServiceStub(server.channel)
        sending = getattr(stub, RPC)(request, metadata=(("mm-model-id", LLM),))
        await anext(aiter(sending))
        await eventually(lambda: runtime.running == 1)
        sending.cancel()
        await eventually(lambda: runtime.running == 0)


async def test_a_deadline_ends_a_call_in_the_engine(eventually):
    runtime = fake_runtime(id=LLM, token_s=0.01)
    async with caikit(runtime) as server:
        request = ServerStreamingTextGenerationTaskRequest(text="hi", **ENDLESS)
        stub: Any = NlpServiceStub(server.channel)
        sending = getattr(stub, RPC)(request, metadata=(("mm-model-id", LLM),), timeout=0.5)
        with pytest.raises(Exception, match="Deadline Exceeded"):
            async for _ in sending:
                pass
        await eventually(lambda: runtime.running == 0)


async def test_a_failure_in_the_middle_is_the_last_event_and_says_nothing_of_its_cause():
    async with caikit(fake_runtime(id=LLM, fail_after_tokens=2)) as server:
        answer = await server.http.post(STREAM, json=body())
        assert answer.status_code == 200
        *pieces, (kind, told) = content(answer.text)
        assert [piece["details"]["generated_tokens"] for _, piece in pieces] == [0, 1, 2]
        assert kind == "event: error"
        assert told == {
            "details": "internal error",
            "code": 500,
            "id": answer.headers["x-request-id"],
        }
        assert await call(server, RPC, b"\x0a\x01x", ("mm-model-id", LLM)) == "INTERNAL"


async def test_overload_is_told_in_a_stream_too():
    async with caikit(fake_runtime(id=LLM, overloaded=True)) as server:
        [(kind, told)] = content((await server.http.post(STREAM, json=body())).text)
        assert (kind, told["code"], told["details"]) == ("event: error", 429, "Model is overloaded")
        assert await call(server, RPC, b"\x0a\x01x", ("mm-model-id", LLM)) == "RESOURCE_EXHAUSTED"
        answer = await server.http.post(UNARY, json=body())
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["details"] == "Model is overloaded"


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "input tokens (40) plus prefix length (0) must be < 40"),
        (
            {"truncate_input_tokens": 30, "min_new_tokens": 15},
            "input tokens (30) plus prefix length (0) plus min_new_tokens (15) must be <= 40",
        ),
    ],
)
async def test_a_prompt_that_leaves_no_room_is_refused_in_tgis_words(parameters, told):
    async with caikit(fake_runtime(id=LLM, max_model_len=40)) as server:
        answer = await server.http.post(UNARY, json=body("x" * 40, **parameters))
        assert (answer.status_code, answer.json()["details"]) == (400, told)
        [(_, error)] = content(
            (await server.http.post(STREAM, json=body("x" * 40, **parameters))).text
        )
        assert (error["code"], error["details"]) == (400, told)


async def test_the_operator_says_how_many_new_tokens_there_may_be():
    async with caikit(fake_runtime(id=LLM), caikit={"max_new_tokens": 50}) as server:
        answer = await server.http.post(UNARY, json=body(max_new_tokens=51))
        assert answer.json()["details"] == "max_new_tokens must be <= 50"
        request = ServerStreamingTextGenerationTaskRequest(text="hi", max_new_tokens=51)
        sent = request.SerializeToString()
        assert await call(server, RPC, sent, ("mm-model-id", LLM)) == "INVALID_ARGUMENT"


async def test_an_adapter_with_a_name_of_its_own_is_asked_for():
    runtime = fake_runtime(id=LLM, adapters=("own",))
    describe = runtime.describe

    async def described() -> Any:
        [card] = await describe()
        return (replace(card, adapters=(Adapter(name="own", root="own"),)),)

    runtime.describe = described  # type: ignore[method-assign]
    async with caikit(runtime) as server:
        answer = await server.http.post(UNARY, json={**body(), "model_id": "own"})
        assert answer.status_code == 200
        [asked] = [one for one in runtime.seen if isinstance(one, Generate)]
        assert asked.adapter == "own"


async def test_a_form_asks_for_text_too():
    async with caikit(fake_runtime(id=LLM)) as server:
        fields = {
            "model_id": LLM,
            "inputs": "hi",
            "parameters.max_new_tokens": "3",
            "parameters.stop_sequences": "q",
            "parameters.exponential_decay_length_penalty.start_index": "2",
            "parameters.exponential_decay_length_penalty.decay_factor": "1.5",
        }
        files = {name: (None, value) for name, value in fields.items()}
        answer = await server.http.post(STREAM, files=files)
        assert len(content(answer.text)) <= 4
        assert json.loads(answer.text.split("data: ")[1].split("\r\n")[0])["generated_text"] == ""
