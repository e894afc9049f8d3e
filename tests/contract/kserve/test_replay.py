"""What Triton was asked is asked again; what it answered is what we answer.

Where we differ it is on purpose, and stands in the table of `configs/openvino/README.md`. Texts of
errors differ: ours name the field, what is expected and what came; the status and the shape count.
"""

import base64
import json
from typing import Any

import grpc
import numpy as np
import pytest

from rayserve_platform.core.tensors import DTYPES
from rayserve_platform.pb import kserve_inference_pb2 as pb
from tests.contract.kserve.recordings import content, differences, models, recorded

OWN = {"server metadata", "model metadata", "version metadata"}
"""Told of the server or its platform, so compared without these."""


@pytest.fixture(scope="module")
def different() -> dict[str, dict[str, str]]:
    return differences()


def split(body: bytes, headers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON of an answer, and its outputs by name, with their binary data.

    Triton keeps the model's order of outputs, we the request's; names tell them apart.
    """
    length = int(headers.get("inference-header-content-length", len(body)))
    document = json.loads(body[:length])
    outputs, place = {}, length
    for output in document.pop("outputs", []):
        size = output.get("parameters", {}).get("binary_data_size", 0)
        outputs[output["name"]] = (output, body[place : place + size])
        place += size
    assert place == len(body)
    for key in ("name", "version", "extensions", "platform"):
        document.pop(key, None)
    return document, outputs


async def test_rest_requests_are_answered_as_triton_answers_them(serve, different):
    running = await serve(*models())
    wrong: list[Any] = []
    for case in recorded("http"):
        name, asked, theirs = case["name"], case["request"], case["answer"]
        found = await running.http.request(
            asked["method"],
            asked["path"],
            content=content(asked["body"]),
            headers=asked["headers"],
        )
        status = theirs["status"] if theirs["status"] != 500 else 400
        expected = int(different["REST"].get(name, status))
        if found.status_code != expected:
            wrong.append((name, found.status_code, expected, found.text))
        elif found.status_code != 200:
            assert list(found.json()) in (["error"], ["name", "ready"]), name
        elif theirs["status"] == 200 and content(theirs["body"]):
            ours = split(found.content, found.headers)
            same = ours == split(content(theirs["body"]), theirs["headers"])
            if same == (name in different["REST"]):
                wrong.append((name, ours, theirs["body"]))
    assert wrong == [], "\n".join(map(str, wrong))


@pytest.mark.parametrize("transport", ["REST", "gRPC"])
def test_the_table_names_recorded_cases_and_what_triton_answered(transport, different):
    kind, key = ("http", "status") if transport == "REST" else ("grpc", "code")
    answered = {case["name"]: str(case["answer"].get(key)) for case in recorded(kind)}
    told = differences("Triton")[transport]
    assert told == {name: answered.get(name) for name in told}
    assert different[transport].keys() == told.keys()


def raw_form(answer: Any) -> dict[str, Any]:
    """Return an answer with its data raw, as Triton always has it."""
    return {
        "head": (answer.model_name, answer.model_version, answer.id, dict(answer.parameters)),
        "outputs": {
            output.name: (output.datatype, list(output.shape), raw)
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        },
    }


RPCS: dict[str, Any] = {
    "ServerLive": pb.ServerLiveResponse,
    "ServerReady": pb.ServerReadyResponse,
    "ModelReady": pb.ModelReadyResponse,
    "ModelMetadata": pb.ModelMetadataResponse,
    "ModelInfer": pb.ModelInferResponse,
}


async def call(channel: Any, rpc: str, request: bytes) -> tuple[str, bytes]:
    method = channel.unary_unary(f"/inference.GRPCInferenceService/{rpc}")
    try:
        return "OK", await method(request)
    except grpc.aio.AioRpcError as error:
        return error.code().name, (error.details() or "").encode()


async def test_grpc_requests_are_answered_as_triton_answers_them(serve, different):
    running = await serve(*models())
    wrong: list[Any] = []
    for case in recorded("grpc"):
        if case["rpc"] == "ModelStreamInfer":
            continue
        name, theirs = case["name"], case["answer"]
        code, message = await call(running.channel, case["rpc"], base64.b64decode(case["request"]))
        expected = different["gRPC"].get(name, theirs["code"])
        if code != expected or not (message or code == "OK"):
            wrong.append((name, code, expected, message))
        elif code == theirs["code"] == "OK" and name not in OWN:
            kind = RPCS[case["rpc"]]
            want = kind.FromString(base64.b64decode(theirs["message"]))
            got = kind.FromString(message)
            if case["rpc"] == "ModelMetadata":
                want.ClearField("platform")
                got.ClearField("platform")
            if case["rpc"] == "ModelInfer":
                typed = any(output.HasField("contents") for output in got.outputs)
                assert typed == name.endswith("typed"), name
                want, got = raw_form(want), raw_form(as_raw(got) if typed else got)
            if got != want:
                wrong.append((name, got, want))
    assert wrong == [], "\n".join(map(str, wrong))


def as_raw(answer: Any) -> Any:
    """Move typed contents, in which we answer who asks in them, to where Triton has them."""
    for output in answer.outputs:
        ((_, values),) = output.contents.ListFields()
        if output.datatype == "BYTES":
            raw = b"".join(len(item).to_bytes(4, "little") + item for item in values)
        else:
            raw = np.array(list(values), DTYPES[output.datatype]).tobytes()
        answer.raw_output_contents.append(raw)
    return answer


async def test_streams_are_answered_as_triton_answers_them(serve):
    running = await serve(*models())
    for case in recorded("grpc"):
        if case["rpc"] != "ModelStreamInfer":
            continue
        method = running.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        asked = [base64.b64decode(request) for request in case["requests"]]
        got = [pb.ModelStreamInferResponse.FromString(item) async for item in method(iter(asked))]
        want = [
            pb.ModelStreamInferResponse.FromString(base64.b64decode(item))
            for item in case["answer"]["messages"]
        ]
        # Triton answers as it finishes, we in the order of the requests.
        for answers in (got, want):
            answers.sort(key=lambda item: item.infer_response.id)
        for ours, theirs in zip(got, want, strict=True):
            assert bool(ours.error_message) == bool(theirs.error_message), case["name"]
            if theirs.error_message and not theirs.infer_response.id:
                continue
            assert raw_form(ours.infer_response) == raw_form(theirs.infer_response), case["name"]
