"""What Triton was asked is asked again; what it answered is what we answer.

Where we differ it is on purpose, and stands in a table here with the reason. Texts of errors
differ: ours name the field, what is expected and what came; the status and the shape count.
"""

import base64
import json
from typing import Any

import grpc
import pytest

from rayserve_platform.pb import kserve_inference_pb2 as pb
from tests.contract.kserve.recordings import content, models, recorded

FAULT = "a caller's mistake is 4xx, as the specification has it; Triton says 500"
LENIENT = "KServe's and OVMS's servers take it"
STRICT = "data that is not what its datatype or shape says is refused; Triton changes it silently"

HTTP: dict[str, tuple[int, str]] = {
    "unknown model ready": (404, "the specification: a model that does not exist is not found"),
    "unknown version ready": (404, "as above"),
    "null id": (200, f"null is no id; {LENIENT}"),
    "raw body": (200, "the extension: what one dimension leaves open follows from the length"),
    "FP16 in JSON": (200, LENIENT),
    "not gzip": (400, "the same status, for the coding instead of the missing data"),
    "unknown encoding": (415, "RFC 9110, 15.5.16"),
    "ragged": (400, STRICT),
    "list among numbers": (400, STRICT),
    "FP32 beyond its range": (400, STRICT),
    "NaN": (400, "NaN is no JSON (RFC 8259); the binary data extension carries it"),
    "Infinity": (400, "as above"),
    "binary bytes that are no text, answered in JSON": (400, "JSON is UTF-8 (RFC 8259)"),
    "classification": (400, "an extension that we don't have is refused by name"),
    **{
        f"{kind} too {how}": (400, STRICT)
        for kind in ("UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32")
        for how in ("large", "small")
    },
}
"""Other status, and why."""
GRPC: dict[str, tuple[str, str]] = {
    "model ready affine abc": ("OK", "what does not exist is not ready, whatever its name"),
    "model metadata affine abc": ("NOT_FOUND", "what does not exist is not found"),
    "version is no number": ("NOT_FOUND", "as above"),
    "more raw than inputs": ("INVALID_ARGUMENT", STRICT),
    "huge dimension": ("INVALID_ARGUMENT", STRICT),
    **{
        f"{kind} out of range": ("INVALID_ARGUMENT", STRICT)
        for kind in ("UINT8", "INT8", "INT16", "UINT16")
    },
}
OTHER = {
    "output overrides binary_data_output": "the extension: an output that says nothing of its own "
    "follows the request's parameter",
}
"""The same status and another answer, and why."""
OWN = {"server metadata", "model metadata", "version metadata"}
"""Told of the server or its platform, so compared without these."""


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


async def test_rest_requests_are_answered_as_triton_answers_them(serve):
    running = await serve(*models())
    different = []
    for case in recorded("http"):
        asked, theirs = case["request"], case["answer"]
        found = await running.http.request(
            asked["method"],
            asked["path"],
            content=content(asked["body"]),
            headers=asked["headers"],
        )
        status = theirs["status"] if theirs["status"] != 500 else 400
        expected = HTTP.get(case["name"], (status,))[0]
        if found.status_code != expected:
            different.append((case["name"], found.status_code, expected, found.text))
        elif found.status_code != 200:
            assert list(found.json()) in (["error"], ["name", "ready"]), case["name"]
        elif theirs["status"] == 200 and content(theirs["body"]):
            ours = split(found.content, found.headers)
            same = ours == split(content(theirs["body"]), theirs["headers"])
            if same == (case["name"] in OTHER):
                different.append((case["name"], ours, theirs["body"]))
    assert different == [], "\n".join(map(str, different))


def test_each_difference_that_is_listed_is_one():
    statuses = {case["name"]: case["answer"]["status"] for case in recorded("http")}
    codes = {case["name"]: case["answer"]["code"] for case in recorded("grpc")}
    assert {name for name, (status, _) in HTTP.items() if statuses[name] == status} == {"not gzip"}
    assert [name for name, (code, _) in GRPC.items() if codes[name] == code] == []


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


async def test_grpc_requests_are_answered_as_triton_answers_them(serve):
    running = await serve(*models())
    different = []
    for case in recorded("grpc"):
        if case["rpc"] == "ModelStreamInfer":
            continue
        name, theirs = case["name"], case["answer"]
        code, message = await call(running.channel, case["rpc"], base64.b64decode(case["request"]))
        expected = GRPC.get(name, (theirs["code"],))[0]
        if code != expected or not (message or code == "OK"):
            different.append((name, code, expected, message))
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
                if typed:
                    continue
                want, got = raw_form(want), raw_form(got)
            if got != want:
                different.append((name, got, want))
    assert different == [], "\n".join(map(str, different))


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


@pytest.mark.parametrize("table", [HTTP, GRPC])
def test_every_difference_has_a_reason(table):
    assert all(reason for _, reason in table.values())
