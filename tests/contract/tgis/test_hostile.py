"""Whatever a client sends is answered, or refused as its own mistake: no UNKNOWN, no hang."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub

ALLOWED = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
TIMEOUT_S = 30

texts = st.text(max_size=40)
small = st.integers(0, 70)
uint32 = small | st.integers(0, 2**32 - 1)
floats = st.floats(width=32) | st.sampled_from([0.0, 0.5, 1.0])
values: dict[str, Any] = {
    "string": texts,
    "uint32": uint32,
    "uint64": st.integers(0, 2**64 - 1),
    "float": floats,
    "bool": st.booleans(),
}


def messages(kind: Any) -> st.SearchStrategy[Any]:
    """Any message of a kind, with any of its fields."""

    def build(fields: dict[str, Any]) -> Any:
        made = kind()
        for name, value in fields.items():
            field = kind.DESCRIPTOR.fields_by_name[name]
            if field.is_repeated:
                getattr(made, name).extend(value)
            elif field.message_type:
                getattr(made, name).CopyFrom(value)
            else:
                setattr(made, name, value)
        return made

    optional = {field.name: _values(field) for field in kind.DESCRIPTOR.fields}
    return st.fixed_dictionaries({}, optional=optional).map(build)


def _values(field: Any) -> st.SearchStrategy[Any]:
    scalars = {9: "string", 13: "uint32", 4: "uint64", 2: "float", 8: "bool"}
    one: st.SearchStrategy[Any]
    if field.message_type:
        one = st.deferred(lambda: messages(field.message_type._concrete_class))
    elif field.enum_type:
        one = st.sampled_from([value.number for value in field.enum_type.values] + [99])
    else:
        one = values[scalars[field.type]]
    return st.lists(one, max_size=4) if field.is_repeated else one


async def code_of(sending: Any) -> str:
    try:
        if hasattr(sending, "__aiter__"):
            async for _ in sending:
                pass
        else:
            await sending
    except grpc.aio.AioRpcError as error:
        long = len(error.details() or "") > 1000
        return "details too long" if long else str(error.code().name)
    return "OK"


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("Generate", pb.BatchedGenerationRequest),
        ("GenerateStream", pb.SingleGenerationRequest),
        ("Tokenize", pb.BatchedTokenizeRequest),
        ("ModelInfo", pb.ModelInfoRequest),
    ],
)
async def test_any_message_is_answered_or_refused(serve, method, kind):
    server = await serve(max_model_len=64, adapters=["poet"])
    send = getattr(GenerationServiceStub(server.channel), method)
    loop = asyncio.get_running_loop()

    @given(message=messages(kind))
    @settings(max_examples=150)
    def ask(message: Any) -> None:
        sending = asyncio.run_coroutine_threadsafe(_ask(send, message), loop)
        assert sending.result(TIMEOUT_S) in ALLOWED, json_format.MessageToJson(message)

    await asyncio.to_thread(ask)
    assert server.runtime.running == 0


async def _ask(send: Any, message: Any) -> str:
    return await code_of(send(message, timeout=TIMEOUT_S))


@pytest.mark.parametrize(
    "request_",
    [
        pb.BatchedGenerationRequest(requests=[pb.GenerationRequest()] * 100_000),
        pb.BatchedGenerationRequest(requests=[pb.GenerationRequest(text="x")] * 5_000),
        pb.BatchedGenerationRequest(adapter_id="a" * 2**20),
        pb.BatchedGenerationRequest(adapter_id="../" * 5_000),
        pb.BatchedGenerationRequest(
            requests=[pb.GenerationRequest(text="x")],
            params=pb.Parameters(stopping=pb.StoppingCriteria(stop_sequences=["x" * 200] * 10_000)),
        ),
    ],
    ids=["empty prompts", "prompts", "a long id", "a winding id", "stop sequences"],
)
async def test_large_requests_are_refused_at_once(serve, request_):
    server = await serve()
    stub = GenerationServiceStub(server.channel)
    code = await code_of(stub.Generate(request_, timeout=TIMEOUT_S))
    assert code in ALLOWED - {"OK"}
    assert server.runtime.running == 0
