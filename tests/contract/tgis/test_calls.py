"""Calls of the TGIS service over real sockets: batches, streams, errors, limits, cancelling."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rayserve_platform.core.messages import Generate
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.contract.tgis.recordings import call, cases, difference

NEEDS_TOKENS = ("input tokens", "can't retrieve", "Invalid adapter")
"""Beginnings of refusals for which the recorded model or its adapters are needed."""


def batch(*texts: str, **fields: Any) -> pb.BatchedGenerationRequest:
    requests = [pb.GenerationRequest(text=text) for text in texts]
    return pb.BatchedGenerationRequest(requests=requests, **fields)


def single(text: str = "Once", **fields: Any) -> pb.SingleGenerationRequest:
    return pb.SingleGenerationRequest(request=pb.GenerationRequest(text=text), **fields)


def params(**groups: dict[str, Any]) -> pb.Parameters:
    return pb.Parameters(**groups)  # type: ignore[arg-type]  # protobuf takes dicts for messages


async def refused(sending: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sending
    return caught.value


def _refusals() -> list[Any]:
    """The recorded refusals that do not depend on the model."""
    return [
        pytest.param(case, id=f"{case['rpc']} {case['name']}")
        for case in cases("default.json")
        if case["result"]["code"] == "INVALID_ARGUMENT"
        and not case["result"]["details"].startswith(NEEDS_TOKENS)
    ]


@pytest.mark.parametrize("case", _refusals())
async def test_recorded_refusals_are_the_same(case, serve):
    server = await serve()
    assert difference(case, await call(server.channel, case)) is None


async def test_an_adapter_that_does_not_exist_is_told_before_a_wrong_parameter(serve):
    server = await serve(adapters=["poet"])
    stub = GenerationServiceStub(server.channel)
    wrong = params(sampling={"top_p": 1.5})
    error = await refused(stub.Generate(batch("x", params=wrong, adapter_id="missing")))
    assert error.details() == "can't retrieve adapter with id 'missing': directory does not exist"
    error = await refused(stub.Generate(batch("x", params=wrong, prefix_id="poet")))
    assert error.details() == "top_p must be > 0.0 and <= 1.0"
    error = await refused(stub.Generate(batch(adapter_id="missing")))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_batch_is_answered_in_its_order_each_prompt_with_its_own_bound(serve):
    server = await serve(max_model_len=20, token_s=0.001)
    stub = GenerationServiceStub(server.channel)
    wanted = params(stopping={"max_new_tokens": 10, "min_new_tokens": 1})
    texts = ["a", "b" * 17, "c" * 5]
    answer = await stub.Generate(batch(*texts, params=wanted))
    assert [one.input_token_count for one in answer.responses] == [1, 17, 5]
    assert [one.generated_token_count for one in answer.responses] == [10, 3, 10]
    assert [one.stop_reason for one in answer.responses] == [
        pb.MAX_TOKENS,
        pb.TOKEN_LIMIT,
        pb.MAX_TOKENS,
    ]
    alone = [await stub.Generate(batch(text, params=wanted)) for text in texts]
    assert [one.text for one in answer.responses] == [one.responses[0].text for one in alone]


async def test_one_prompt_that_fails_fails_the_call_and_ends_the_others(serve, eventually):
    server = await serve(max_model_len=50, token_s=1.0)
    stub = GenerationServiceStub(server.channel)
    wanted = params(stopping={"max_new_tokens": 40, "min_new_tokens": 5})
    error = await refused(stub.Generate(batch("a", "b" * 60, "c", params=wanted)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "input tokens (60) plus prefix length (0) must be < 50"
    await eventually(lambda: server.runtime.running == 0)
    error = await refused(stub.Generate(batch("b" * 46, params=wanted)))
    assert error.details() == (
        "input tokens (46) plus prefix length (0) plus min_new_tokens (5) must be <= 50"
    )


async def test_a_stream_is_one_message_of_the_input_and_then_one_a_token(serve):
    server = await serve()
    stub = GenerationServiceStub(server.channel)
    wanted = params(
        method=pb.SAMPLE,  # type: ignore[arg-type]
        sampling={"seed": 7},
        stopping={"max_new_tokens": 5},
        response={"input_text": True, "generated_tokens": True},
    )
    messages = [m async for m in stub.GenerateStream(single(params=wanted))]
    whole = await stub.Generate(batch("Once", params=wanted))
    first, *pieces = messages
    assert first == pb.GenerationResponse(input_token_count=4, text="Once", seed=7)
    assert [m.generated_token_count for m in pieces] == [1, 2, 3, 4, 5]
    assert [m.stop_reason for m in pieces] == [pb.NOT_FINISHED] * 4 + [pb.MAX_TOKENS]
    [answer] = whole.responses
    assert "Once" + "".join(m.text for m in pieces) == answer.text
    assert [t for m in pieces for t in m.tokens] == list(answer.tokens)
    assert (answer.seed, answer.input_token_count) == (7, 4)


async def test_time_limits_end_unary_calls_and_streams(serve):
    server = await serve(token_s=0.02, max_model_len=4000)
    stub = GenerationServiceStub(server.channel)
    wanted = params(
        stopping={"max_new_tokens": 1000, "min_new_tokens": 1000, "time_limit_millis": 100}
    )
    [one] = (await stub.Generate(batch("a", params=wanted))).responses
    assert one.stop_reason == pb.TIME_LIMIT
    assert 0 < one.generated_token_count < 1000
    *_, last = [m async for m in stub.GenerateStream(single(params=wanted))]
    assert last.stop_reason == pb.TIME_LIMIT


async def test_a_stream_without_a_request_is_refused(serve):
    server = await serve()
    stream = GenerationServiceStub(server.channel).GenerateStream(pb.SingleGenerationRequest())
    error = await refused(anext(aiter(stream)))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "missing request",
    )


async def test_what_the_runtime_cannot_do_is_the_callers_to_change(serve):
    server = await serve()
    stub = GenerationServiceStub(server.channel)
    guided = params(decoding={"regex": "a+"})
    error = await refused(stub.Generate(batch("x", params=guided)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "guide" in (error.details() or "")


async def test_calls_with_one_correlation_id_are_all_answered_under_it(serve):
    server = await serve(token_s=0.001)
    stub = GenerationServiceStub(server.channel)
    metadata = (("x-correlation-id", "mine"),)
    answers = await asyncio.gather(
        *(stub.Generate(batch("a", "b"), metadata=metadata) for _ in range(4))
    )
    assert len(answers) == 4
    seen = [one for one in server.runtime.seen if isinstance(one, Generate)]
    assert {one.request_id for one in seen} == {"mine"}


async def test_a_correlation_id_that_is_not_fit_for_a_log_is_not_taken(serve):
    server = await serve()
    stub = GenerationServiceStub(server.channel)
    await stub.Generate(batch("a"), metadata=(("x-correlation-id", "two words"),))
    await stub.Generate(batch("a"), metadata=(("x-correlation-id", ""),))
    ids = [one.request_id for one in server.runtime.seen if isinstance(one, Generate)]
    assert len(ids) == len(set(ids)) == 2
    assert all(len(name) == 32 for name in ids)


@pytest.mark.parametrize(
    ("engine", "limits", "texts"),
    [
        ({"overloaded": True}, {}, ["a"]),
        ({}, {"max_concurrent_requests": 2}, ["a", "b", "c"]),
    ],
    ids=["the engine", "the ingress"],
)
async def test_overload_is_told_in_the_originals_words(serve, engine, limits, texts):
    server = await serve(ingress={"limits": limits}, **engine)
    error = await refused(GenerationServiceStub(server.channel).Generate(batch(*texts)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "Model is overloaded"


async def test_places_are_counted_over_calls_and_given_back(serve, eventually):
    server = await serve(
        ingress={"limits": {"max_concurrent_requests": 3}}, first_token_s=0.5, token_s=0.01
    )
    stub = GenerationServiceStub(server.channel)
    busy = asyncio.ensure_future(stub.Generate(batch("a", "b")))
    await eventually(lambda: server.runtime.running == 2)
    error = await refused(stub.Generate(batch("c", "d")))
    assert error.details() == "Model is overloaded"
    assert len((await stub.Generate(batch("c"))).responses) == 1
    await busy
    assert len((await stub.Generate(batch("a", "b", "c"))).responses) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_a_call_ends_it_in_the_engine(serve, eventually, stream):
    server = await serve(token_s=0.05)
    stub = GenerationServiceStub(server.channel)
    wanted = params(stopping={"max_new_tokens": 1000, "min_new_tokens": 1000})
    sending: Any
    if stream:
        sending = stub.GenerateStream(single(params=wanted))
        await anext(aiter(sending))
    else:
        sending = stub.Generate(batch("a", "b", params=wanted))
    await eventually(lambda: server.runtime.running == (1 if stream else 2))
    sending.cancel()
    await eventually(lambda: server.runtime.running == 0)


async def test_a_deadline_ends_the_call_in_the_engine(serve, eventually):
    server = await serve(token_s=0.05)
    stub = GenerationServiceStub(server.channel)
    wanted = params(stopping={"max_new_tokens": 1000, "min_new_tokens": 1000})
    error = await refused(stub.Generate(batch("a", params=wanted), timeout=0.5))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: server.runtime.running == 0)


async def test_a_failure_inside_the_engine_says_nothing_of_its_cause(serve):
    server = await serve(fail_after_tokens=2)
    stub = GenerationServiceStub(server.channel)
    error = await refused(stub.Generate(batch("a")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "scripted" not in (error.details() or "")


async def test_a_request_over_grpcs_own_limit_is_refused(serve):
    server = await serve()
    stub = GenerationServiceStub(server.channel)
    error = await refused(stub.Generate(batch("x" * (4 * 2**20 + 1))))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_tokenizing_counts_and_truncates(serve):
    server = await serve(max_model_len=4)
    stub = GenerationServiceStub(server.channel)
    texts = [pb.TokenizeRequest(text=text) for text in ("héllo", "", "ab" * 40)]
    request = pb.BatchedTokenizeRequest(
        requests=texts, return_tokens=True, return_offsets=True, truncate_input_tokens=3
    )
    answer = await stub.Tokenize(request)
    assert [one.token_count for one in answer.responses] == [3, 0, 3]
    assert list(answer.responses[0].tokens) == ["l", "l", "o"]
    assert [(o.start, o.end) for o in answer.responses[0].offsets] == [(2, 3), (3, 4), (4, 5)]
    plain = await stub.Tokenize(pb.BatchedTokenizeRequest(requests=texts * 20))
    assert [one.token_count for one in plain.responses] == [5, 0, 80] * 20
    assert not plain.responses[0].tokens


async def test_the_model_is_described_whatever_it_is_called(serve):
    server = await serve(max_model_len=64, ingress={"tgis": {"max_new_tokens": 32}})
    stub = GenerationServiceStub(server.channel)
    for name in ("", "fake", "no-such-model"):
        answer = await stub.ModelInfo(pb.ModelInfoRequest(model_id=name))
        assert (answer.max_sequence_length, answer.max_new_tokens) == (64, 32)
        assert answer.model_kind == pb.ModelInfoResponse.DECODER_ONLY


async def test_health_knows_the_service_by_name(serve):
    server = await serve()
    stub: Any = health_pb2_grpc.HealthStub(server.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "fmaas.GenerationService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == serving
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=name))
        assert (await anext(aiter(watching))).status == serving
        watching.cancel()
    error = await refused(stub.Check(health_pb2.HealthCheckRequest(service="fmaas.Nope")))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "")
    server.runtime.healthy = False
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="fmaas.GenerationService"))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
