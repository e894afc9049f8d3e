import base64
import json
from pathlib import Path

import numpy as np
import pytest

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.inference import (
    LOADS,
    NAMES,
    TOKENS,
    InferLoad,
    Name,
    Wire,
    infer_call,
    read_answer,
    rows,
)
from rayserve_platform.bench.rpc import RpcCall
from rayserve_platform.pb import kserve_inference_pb2 as pb

RECORDED = Path(__file__).parents[2] / "data/kserve"


def recorded(transport: str, name: str) -> dict:
    exchanges = json.loads((RECORDED / f"triton_{transport}.json").read_text())
    return next(found for found in exchanges if found["name"] == name)


def content(part: dict) -> bytes:
    return base64.b64decode(part["base64"]) if "base64" in part else part["text"].encode()


def asked(model: Name, wire: Wire) -> InferLoad:
    return InferLoad(model=model, wire=wire, concurrency=1)


def call_of(model: Name, wire: Wire) -> Call | RpcCall:
    return infer_call(asked(model, wire), url="http://h:1", target="h:2", timeout_s=3)


def test_every_load_is_named_apart():
    labels = [load.label for load in LOADS]
    assert len(set(labels)) == len(labels) == 18
    assert labels[:4] == ["mlp REST JSON c=1", "mlp REST JSON c=8", "mlp REST JSON c=32",
                          "mlp REST binary c=1"]  # fmt: skip
    assert {load.ceiling for load in LOADS if load.concurrency == 8} == {
        "mlp batches of 8", "minilm batches of 8",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_rows_repeat_and_differ_among_themselves(name: Name):
    assert rows(name) == rows(name)
    assert len({json.dumps(row) for row in rows(name)}) == len(rows(name))


def test_numbers_survive_float32_and_texts_have_the_length_that_is_said():
    for row in rows("mlp"):
        assert np.array_equal(np.array(row["x"], np.float32).astype(np.float64), row["x"])
    for row in rows("minilm"):
        assert [len(values) for values in row.values()] == [TOKENS, TOKENS]


def inputs_of(request: pb.ModelInferRequest) -> dict[str, tuple[str, list[int], list]]:
    kinds = {"FP32": "<f4", "INT64": "<i8"}
    return {
        given.name: (
            given.datatype,
            list(given.shape),
            np.frombuffer(raw, kinds[given.datatype]).tolist(),
        )
        for given, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


@pytest.mark.parametrize("name", NAMES)
def test_grpc_requests_are_messages_of_the_protocol_with_the_rows_in_them(name: Name):
    call = call_of(name, "gRPC")
    assert isinstance(call, RpcCall)
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert (call.target, call.method) == ("h:2", f"/{service.full_name}/ModelInfer")
    for body, row in zip(call.bodies, rows(name), strict=True):
        request = pb.ModelInferRequest.FromString(body)
        assert request.model_name == name
        assert {key: values for key, (_, _, values) in inputs_of(request).items()} == row
        assert all(shape == [1, len(row[key])] for key, (_, shape, _) in inputs_of(request).items())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_go_over_all_wires(name: Name):
    whole, binary, rpc = (call_of(name, wire) for wire in ("JSON", "binary", "gRPC"))
    assert isinstance(whole, Call)
    assert isinstance(binary, Call)
    assert whole.url == binary.url == f"http://h:1/v2/models/{name}/infer"
    head = int(binary.headers["Inference-Header-Content-Length"])
    for text, body, message in zip(whole.bodies, binary.bodies, rpc.bodies, strict=True):
        request = pb.ModelInferRequest.FromString(message)
        assert body[head:] == b"".join(request.raw_input_contents)
        said = json.loads(body[:head])["inputs"]
        sizes = [given.pop("parameters") for given in said]
        assert sizes == [{"binary_data_size": len(raw)} for raw in request.raw_input_contents]
        for given in json.loads(text)["inputs"]:
            data = given.pop("data")
            assert (given["datatype"], given["shape"], data) == inputs_of(request)[given["name"]]
            assert given in said


def test_binary_requests_say_what_triton_was_told():
    request = recorded("http", "binary both ways")["request"]
    call = call_of("mlp", "binary")
    assert isinstance(call, Call)
    assert call.headers.keys() == request["headers"].keys()
    assert call.headers["Content-Type"] == request["headers"]["Content-Type"]
    theirs, ours = (
        json.loads(body[: int(headers["Inference-Header-Content-Length"])])
        for body, headers in (
            (content(request["body"]), request["headers"]),
            (call.bodies[0], call.headers),
        )
    )
    assert ours["parameters"] == theirs["parameters"]
    assert ours["inputs"][0].keys() == theirs["inputs"][0].keys()


@pytest.mark.parametrize(("wire", "name"), [("JSON", "flat"), ("binary", "binary both ways")])
def test_triton_s_rest_answers_are_read(wire: Wire, name: str):
    answer = recorded("http", name)["answer"]
    headers = {
        "-".join(word.capitalize() for word in key.split("-")): value
        for key, value in answer["headers"].items()
    }
    found = read_answer(asked("mlp", wire), content(answer["body"]), headers)
    assert found == [3.0, 5.0, 7.0, 9.0]  # `affine` of 1, 2, 3, 4: see ORIGIN.md


def test_triton_s_grpc_answers_are_read_raw_and_mlserver_s_typed_alike():
    message = base64.b64decode(recorded("grpc", "FP32 raw")["answer"]["message"])
    assert read_answer(asked("mlp", "gRPC"), message, {}) == [3.0, -4.0]
    typed = pb.ModelInferResponse(
        outputs=[{"name": "y", "contents": {"fp32_contents": [3.0, -4.0]}}]
    )
    assert read_answer(asked("mlp", "gRPC"), typed.SerializeToString(), {}) == [3.0, -4.0]


@pytest.mark.parametrize(
    ("wire", "body", "message"),
    [
        ("JSON", b'{"outputs": []}', "not one output"),
        ("JSON", b"<html>", "Expecting value"),
        ("binary", b'{"outputs": []}', "is not binary"),
        ("gRPC", b"", "no output with data"),
        ("gRPC", pb.ModelInferResponse(raw_output_contents=[b"abc"]).SerializeToString(), "FP32"),
    ],
)
def test_what_is_no_answer_is_refused(wire: Wire, body: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        read_answer(asked("mlp", wire), body, {})
