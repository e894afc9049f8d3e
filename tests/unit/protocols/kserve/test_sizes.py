"""What takes long goes to a thread, however few bytes it has."""

import numpy as np
import pytest

from rayserve_platform.core.tensors import Inference, Tensor
from rayserve_platform.pb.kserve_inference_pb2 import InferTensorContents, ModelInferRequest
from rayserve_platform.protocols.kserve.answer import THREAD_BYTES, size_of
from rayserve_platform.protocols.kserve.messages import size_of as size_of_request
from rayserve_platform.protocols.kserve.tensors import objects

Input = ModelInferRequest.InferInputTensor


def asked(*inputs: Input, raw: tuple[bytes, ...] = ()) -> ModelInferRequest:
    return ModelInferRequest(inputs=inputs, raw_input_contents=raw)


@pytest.mark.parametrize(
    "request_",
    [
        asked(*[Input(datatype="FP32", shape=[0])] * 1024, raw=(b"",) * 1024),
        asked(Input(datatype="BYTES", shape=[2**15]), raw=(bytes(4 * 2**15),)),
        asked(
            Input(
                datatype="BYTES",
                shape=[2**17],
                contents=InferTensorContents(bytes_contents=[b""] * 2**17),
            )
        ),
        asked(
            Input(
                datatype="INT8",
                shape=[2**17],
                contents=InferTensorContents(int_contents=[1] * 2**17),
            )
        ),
        asked(Input(datatype="FP32", shape=[2**20]), raw=(bytes(2**22),)),
        asked(Input(datatype="FP32", shape=[2**63 - 1] * 1000), raw=(b"",)),
    ],
)
def test_a_request_of_many_things_is_large(request_):
    assert size_of_request(request_) >= THREAD_BYTES


@pytest.mark.parametrize(
    "request_",
    [
        asked(Input(datatype="FP32", shape=[1, 1024]), raw=(bytes(4096),)),
        asked(
            Input(
                datatype="FP32",
                shape=[1, 1024],
                contents=InferTensorContents(fp32_contents=[0.5] * 1024),
            )
        ),
        asked(Input(datatype="BYTES", shape=[64]), raw=(bytes(4 * 64),)),
        asked(),
    ],
)
def test_a_usual_request_is_small(request_):
    assert size_of_request(request_) < THREAD_BYTES


@pytest.mark.parametrize(
    ("items", "large"), [([b"a" * 2**19], True), ([b""] * 2**15, True), ([b"a" * 99] * 99, False)]
)
def test_texts_of_an_answer_count_by_number_and_length(items, large):
    output = Tensor(name="y", datatype="BYTES", data=objects(items))
    assert (size_of(Inference(model="m", outputs=(output,))) >= THREAD_BYTES) is large


def test_numbers_of_an_answer_count_by_their_bytes():
    output = Tensor(name="y", datatype="FP32", data=np.zeros((2, 8), np.float32))
    assert size_of(Inference(model="m", outputs=(output,))) == 64
