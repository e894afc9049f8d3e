"""What a request may hold, and how much of it; both transports."""

from typing import Any

import grpc
import pytest

from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.contract.kserve.conftest import kserve
from tests.contract.kserve.recordings import model

X: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
Input = pb.ModelInferRequest.InferInputTensor
Output = pb.ModelInferRequest.InferRequestedOutputTensor


@pytest.mark.parametrize("where", ["inputs", "outputs"])
async def test_more_tensors_than_any_model_has_are_refused_by_their_number(serve, where):
    running = await serve(model("affine", x=("FP32", (-1, 4))))
    message = f"'{where}' has 1025 tensors; the limit is 1024."
    body = {"inputs": [X], where: [X] * 1025}
    found = await running.http.post("/v2/models/affine/infer", json=body)
    assert (found.status_code, found.json()) == (400, {"error": message})
    one = Input(name="x", datatype="BYTES", shape=[0])
    asked = pb.ModelInferRequest(model_name="affine", inputs=[one])
    if where == "inputs":
        asked.inputs.extend([one] * 1024)
        asked.raw_input_contents.extend([b""] * 1025)
    else:
        asked.outputs.extend([Output(name="y")] * 1025)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await GRPCInferenceServiceStub(running.channel).ModelInfer(asked)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == message


async def test_a_tensor_of_64_mib_goes_both_ways_over_grpc():
    size = 2**26
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with (
        kserve(model("large", x=("UINT8", (-1,))), limits={"max_body_mib": 64}) as running,
        grpc.aio.insecure_channel(running.target, options=options) as channel,
    ):
        asked = pb.ModelInferRequest(
            model_name="large",
            inputs=[Input(name="x", datatype="UINT8", shape=[size])],
            raw_input_contents=[bytes(size - 1) + b"\x07"],
        )
        answer = await GRPCInferenceServiceStub(channel).ModelInfer(asked)
    (raw,) = answer.raw_output_contents
    assert (len(raw), raw[-1]) == (size, 7)
