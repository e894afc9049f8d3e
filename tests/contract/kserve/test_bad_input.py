"""Callers' mistakes: each is told as one, over both transports, by the field it is in."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.contract.kserve.conftest import kserve
from tests.contract.kserve.recordings import model
from tests.transports import Served

X: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
HUGE = 2**62
DEEP = "[" * 900 + "]" * 900


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Served]:
    runtimes = (model("affine", x=("FP32", (-1, 4))), model("words", w=("BYTES", (-1,))))
    async with kserve(*runtimes, limits={"max_body_mib": 0.25}) as server:
        yield server


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shape": [4]}, "Input 'x': expected shape [-1, 4], got [4]."),
        ({"shape": [1, 5], "data": [1] * 5}, "Input 'x': expected shape [-1, 4], got [1, 5]."),
        ({"datatype": "INT64"}, "Input 'x': expected datatype FP32, got INT64."),
        ({"datatype": "FP31"}, "Input 'x': unknown datatype 'FP31'; expected one of BOOL, "),
        ({"datatype": None}, "Input 'x': 'datatype' is required: a string."),
        ({"name": "y"}, "Unknown input 'y'; expected 'x'."),
        ({"name": 5}, "inputs[0]: 'name' is required: a string, got 5."),
        ({"data": [1, 2, 3]}, "Input 'x': expected 4 values for shape [1, 4], got 3."),
        ({"data": ["NaN", 1, 2, 3]}, "Input 'x': FP32 data must be numbers, got 'NaN'."),
        ({"data": "1234"}, "Input 'x': 'data' must be a list."),
        ({"data": None}, "Input 'x': give either 'data' or the parameter 'binary_data_size'."),
        (
            {"shape": [-1, 4]},
            "Input 'x': 'shape' must hold whole numbers from 0 to 2^63-1, got -1.",
        ),
        ({"shape": [1.5, 4]}, "'shape' must hold whole numbers from 0 to 2^63-1, got 1.5."),
        ({"shape": [HUGE, HUGE]}, f"Input 'x': expected {HUGE**2} values for shape"),
        ({"shape": [0, HUGE], "data": []}, f"Input 'x': the shape [0, {HUGE}] is too large."),
        ({"shape": [0, 5], "data": []}, "Input 'x': expected shape [-1, 4], got [0, 5]."),
        ({"shape": [1] * 40}, "Input 'x': 'shape' has 40 dimensions; the limit is 32."),
        ({"shape": 4}, "Input 'x': 'shape' is required: a list of whole numbers."),
    ],
)
async def test_a_wrong_tensor_is_refused_by_field_expectation_and_value(running, given, message):
    found = await running.http.post("/v2/models/affine/infer", json={"inputs": [{**X, **given}]})
    assert found.status_code == 400
    assert message in found.json()["error"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([{**X, "name": "y"}], "Unknown input 'y'; expected 'x'."),
        ([X], "Input 'x' is given more than once."),
    ],
)
async def test_more_inputs_than_the_model_has_are_refused(running, others, message):
    found = await running.http.post("/v2/models/affine/infer", json={"inputs": [X, *others]})
    assert (found.status_code, found.json()) == (400, {"error": message})


@pytest.mark.parametrize("place", ["name", "datatype", "shape", "data", "parameters", "id"])
@pytest.mark.parametrize(
    "value", [DEEP, "[1," + DEEP + "]", '{"a":' + DEEP + "}", '"' + "a" * 9000 + '"']
)
async def test_a_value_however_deep_or_long_is_refused_in_few_words(running, place, value):
    kept = {key: item for key, item in X.items() if key != place}
    tensor = json.dumps(kept)[:-1] + (f', "{place}": {value}}}' if place != "id" else "}")
    body = '{"inputs": [' + tensor + "]" + (f', "id": {value}}}' if place == "id" else "}")
    found = await running.http.post("/v2/models/affine/infer", content=body)
    if place == "id" and value.startswith('"'):
        assert found.json()["id"] == json.loads(value)
        return
    assert found.status_code == 400
    assert 10 < len(found.json()["error"]) < 600


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The request body is not valid JSON"),
        (b'{"inputs": [', "The request body is not valid JSON"),
        (b"[]", "The request body must be a JSON object."),
        (b'{"inputs": [{"name": "x", "data": [NaN]}]}', "The request body is not valid JSON"),
        (b'{"inputs": [{"name": "x", "data": [Infinity]}]}', "The request body is not valid JSON"),
        (b'{"inputs": [{"name": "\xff"}]}', "The request body is not valid JSON"),
        (b"{}", "'inputs' is required: a list of tensors."),
        (b'{"inputs": [5]}', "inputs[0] must be an object."),
        (b'{"inputs": []}', "Input 'x' is missing; expected 'x'."),
    ],
)
async def test_a_body_that_is_no_request_is_refused(running, body, message):
    found = await running.http.post("/v2/models/affine/infer", content=body)
    assert found.status_code == 400
    assert message in found.json()["error"]


@pytest.mark.parametrize(
    ("length", "size", "sent", "message"),
    [
        ("{json}", 20, 16, "Input 'x': expected 20 bytes behind the JSON, got 16."),
        ("{json}", 12, 16, "Input 'x': expected 16 bytes of FP32 for shape [1, 4], got 12."),
        ("{json}", 16, 20, "4 bytes are left over behind the inputs."),
        ("{json}", -1, 16, "Input 'x': 'binary_data_size' must be a whole number of bytes."),
        ("20", 16, 16, "The request body is not valid JSON"),
        ("{more}", 16, 16, "Inference-Header-Content-Length must be the length of the JSON"),
        ("-1", 16, 16, "Inference-Header-Content-Length must be the length of the JSON"),
        ("12a", 16, 16, "Inference-Header-Content-Length must be the length of the JSON"),
    ],
)
async def test_a_binary_body_that_is_cut_wrongly_is_refused(running, length, size, sent, message):
    tensor: dict[str, Any] = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": size}
    text = json.dumps({"inputs": [tensor]}).encode()
    declared = length.format(json=len(text), more=len(text) + sent + 1)
    found = await running.http.post(
        "/v2/models/affine/infer",
        content=text + bytes(sent),
        headers={
            "inference-header-content-length": declared,
            "content-type": "application/octet-stream",
        },
    )
    assert found.status_code == 400
    assert message in found.json()["error"]


@pytest.mark.parametrize("length", [4, 12, 2**32 - 1])
async def test_bytes_whose_lengths_do_not_fit_are_refused(running, length):
    raw = length.to_bytes(4, "little") + b"a"
    tensor: dict[str, Any] = {"name": "w", "shape": [1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    found = await running.http.post("/v2/models/words/infer", content=text + raw, headers=headers)
    assert (found.status_code, found.json()["error"]) == (
        400,
        f"Input 'w': element 0 should have {length} bytes, but only 1 are left.",
    )


async def test_a_body_over_the_limit_is_refused(running):
    tensor = {**X, "shape": [1, 2**18], "data": [0.5] * 2**18}
    found = await running.http.post("/v2/models/affine/infer", json={"inputs": [tensor]})
    assert (found.status_code, found.json()) == (
        413,
        {"error": "The request body is larger than 0.25 MiB."},
    )


async def test_files_of_a_model_that_are_no_base64_are_refused():
    body = {"parameters": {"file:1/model.xml": "%%%"}}
    affine = model("affine", x=("FP32", (-1, 4)))
    async with kserve(affine, kserve={"repository_api": True}) as running:
        found = await running.http.post("/v2/repository/models/affine/load", json=body)
    assert (found.status_code, found.json()["error"]) == (
        400,
        "The parameter 'file:1/model.xml' is not valid base64.",
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v2/models/nope/infer", "The model 'nope' does not exist. Served models: affine, words."),
        (
            "/v2/models/affine/versions/9/infer",
            "The model 'affine' has no version '9'. Available: 1.",
        ),
        ("/v2/models/" + "n" * 5000 + "/infer", "does not exist"),
    ],
)
async def test_an_unknown_model_or_version_is_not_found(running, path, message):
    found = await running.http.post(path, json={"inputs": [X]})
    assert found.status_code == 404
    assert message in found.json()["error"]
    assert len(found.json()["error"]) < 400


def request(**fields: Any) -> pb.ModelInferRequest:
    made = {"name": "x", "datatype": "FP32", "shape": [1, 4], **fields.pop("tensor", {})}
    tensor = pb.ModelInferRequest.InferInputTensor(**made)
    return pb.ModelInferRequest(**{"model_name": "affine", "inputs": [tensor], **fields})


FLOATS = pb.InferTensorContents(fp32_contents=[1, 2, 3, 4])
INTS = pb.InferTensorContents(int_contents=[1, 2, 3, 4])
FULL = pb.ModelInferRequest.InferInputTensor(
    name="x", datatype="FP32", shape=[1, 4], contents=FLOATS
)


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        (request(), "INVALID_ARGUMENT", "Input 'x': expected 4 values for shape [1, 4], got 0."),
        (
            request(tensor={"contents": FLOATS, "shape": [1, 5]}),
            "INVALID_ARGUMENT",
            "Input 'x': expected 5 values for shape [1, 5], got 4.",
        ),
        (
            request(tensor={"contents": INTS}),
            "INVALID_ARGUMENT",
            "Input 'x': expected FP32 data in 'fp32_contents', got 'int_contents'.",
        ),
        (
            request(tensor={"contents": INTS, "datatype": "INT32"}),
            "INVALID_ARGUMENT",
            "Input 'x': expected datatype FP32, got INT32.",
        ),
        (
            request(tensor={"contents": FLOATS, "shape": [-1, 4]}),
            "INVALID_ARGUMENT",
            "Input 'x': 'shape' must hold whole numbers from 0 to 2^63-1, got -1.",
        ),
        (
            request(tensor={"shape": [HUGE, HUGE]}, raw_input_contents=[bytes(16)]),
            "INVALID_ARGUMENT",
            f"expected {4 * HUGE**2} bytes of FP32 for shape [{HUGE}, {HUGE}], got 16.",
        ),
        (
            request(tensor={"shape": [HUGE] * 2**17}, raw_input_contents=[bytes(16)]),
            "INVALID_ARGUMENT",
            "Input 'x': 'shape' has 131072 dimensions; the limit is 32.",
        ),
        (
            request(tensor={"shape": [HUGE] * 2**17}),
            "INVALID_ARGUMENT",
            "Input 'x': 'shape' has 131072 dimensions; the limit is 32.",
        ),
        (
            request(inputs=[FULL, FULL]),
            "INVALID_ARGUMENT",
            "Input 'x' is given more than once.",
        ),
        (
            request(raw_input_contents=[bytes(12)]),
            "INVALID_ARGUMENT",
            "Input 'x': expected 16 bytes of FP32 for shape [1, 4], got 12.",
        ),
        (
            request(raw_input_contents=[bytes(2**18 + 1)]),
            "INVALID_ARGUMENT",
            "'raw_input_contents' has 262145 bytes; the limit is 262144.",
        ),
        (
            request(raw_input_contents=[bytes(16)] * 2),
            "INVALID_ARGUMENT",
            "'raw_input_contents' must have one entry an input: expected 1, got 2.",
        ),
        (request(inputs=[]), "INVALID_ARGUMENT", "Input 'x' is missing; expected 'x'."),
        (
            request(tensor={"name": "y", "contents": FLOATS}),
            "INVALID_ARGUMENT",
            "Unknown input 'y'; expected 'x'.",
        ),
        (request(model_name="nope"), "NOT_FOUND", "The model 'nope' does not exist."),
        (request(model_name=""), "NOT_FOUND", "The request names no model."),
        (
            request(model_version="9", tensor={"contents": FLOATS}),
            "NOT_FOUND",
            "The model 'affine' has no version '9'. Available: 1.",
        ),
    ],
)
async def test_the_same_over_grpc(running, asked, code, message):
    stub = GRPCInferenceServiceStub(running.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(asked)
    assert caught.value.code().name == code
    assert message in (caught.value.details() or "")
