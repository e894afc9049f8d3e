"""ModelStreamInfer: what a stream holds while it waits, and what is told of its errors."""

import grpc
import pytest

from rayserve_platform.core.tensors import Infer
from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.contract.kserve.recordings import model
from tests.contract.kserve.test_texts import llm, text_input

ONE_AT_ONCE = {"limits": {"max_concurrent_requests": 1}}


def asked(**fields) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="x",
        datatype="FP32",
        shape=[1],
        contents=pb.InferTensorContents(fp32_contents=[3]),
    )
    return pb.ModelInferRequest(**{"model_name": "m", "inputs": [tensor], **fields})


async def test_streams_that_wait_for_messages_take_no_place(serve):
    running = await serve(model("m", x=("FP32", (-1,))), **ONE_AT_ONCE)
    stub = GRPCInferenceServiceStub(running.channel)
    streams = [stub.ModelStreamInfer() for _ in range(3)]
    for _ in range(2):
        for stream in streams:
            await stream.write(asked())
            answer = await stream.read()
            assert answer.infer_response.outputs[0].contents.fp32_contents == [7]
            assert (await stub.ModelInfer(asked())).model_name == "m"
    for stream in streams:
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


async def test_a_message_takes_a_place_until_it_is_answered(serve, eventually):
    runtime = llm(first_token_s=60)
    running = await serve(runtime, **ONE_AT_ONCE)
    stub = GRPCInferenceServiceStub(running.channel)
    text = asked(model_name="llm", inputs=[text_input("a", name="text_input")])
    busy, refused = stub.ModelStreamInfer(), stub.ModelStreamInfer()
    await busy.write(text)
    await eventually(lambda: runtime.running == 1)
    await refused.write(text)
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(text)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    busy.cancel()
    await eventually(lambda: runtime.running == 0)
    wrong = stub.ModelInfer(asked(model_name="llm"))
    assert await wrong.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_error_within_a_stream_is_in_the_log(serve, access_log, eventually):
    running = await serve(model("m", x=("FP32", (-1,))))
    stub = GRPCInferenceServiceStub(running.channel)
    good, wrong = asked(), asked(inputs=[])
    answers = [item async for item in stub.ModelStreamInfer(iter([good, wrong, good]))]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    await eventually(lambda: bool(access_log()))
    (line,) = access_log()
    assert (line["route"], line["code"]) == ("ModelStreamInfer", "OK/INVALID_ARGUMENT")


async def test_what_a_parameter_says_of_the_stream_does_not_reach_the_model(serve):
    runtime = model("m", x=("FP32", (-1,)))
    running = await serve(runtime)
    request = asked()
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.parameters["mine"].int64_param = 3
    stub = GRPCInferenceServiceStub(running.channel)
    (answer,) = [item async for item in stub.ModelStreamInfer(iter([request]))]
    assert not answer.error_message
    seen = runtime.seen[-1]
    assert isinstance(seen, Infer)
    assert seen.parameters == {"mine": 3}
