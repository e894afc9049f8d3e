"""The REST API beyond what Triton was asked: our own names, limits, states, pictures."""

import gzip
import io
import json
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import fake_runtime
from tests.contract.kserve.recordings import model

INFER = "/v2/models/affine/infer"
BODY: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]
}
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture
async def running(serve):
    return await serve(model("affine", x=("FP32", (-1, 4))))


def packed(*items: bytes) -> bytes:
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


async def test_what_the_server_says_of_itself(running):
    described = (await running.http.get("/v2")).json()
    assert described["name"] == "rayserve-platform"
    assert described["extensions"] == ["binary_tensor_data", "generate"]
    assert (await running.http.get("/v2/health/live")).json() == {"live": True}
    assert (await running.http.get("/v2/health/ready")).json() == {"ready": True}
    assert (await running.http.get("/v2/models")).json() == {"models": ["affine"]}
    ready = await running.http.get("/v2/models/affine/ready")
    assert ready.json() == {"name": "affine", "ready": True}


async def test_a_server_whose_engine_died_lives_and_is_not_ready(serve):
    runtime = model("affine", x=("FP32", (-1, 4)))
    running = await serve(runtime)
    await running.http.get("/v2/models/affine")
    runtime.healthy = False
    assert (await running.http.get("/v2/health/live")).status_code == 200
    found = await running.http.get("/v2/health/ready")
    assert (found.status_code, found.json()) == (503, {"ready": False})


async def test_the_highest_version_answers_unless_another_is_named(serve):
    runtime = fake_runtime(
        id="org/affine",
        tasks=("infer",),
        inputs={"x": {"shape": (-1, 4)}},
        versions=("1", "2", "10"),
    )
    running = await serve(runtime)
    for path, version, first in (("", "10", 12), ("/versions/2", "2", 4)):
        found = await running.http.post(f"/v2/models/org/affine{path}/infer", json=BODY)
        answer = found.json()
        assert (answer["model_name"], answer["model_version"]) == ("org/affine", version)
        assert answer["outputs"][0]["data"][0] == first
    assert (await running.http.get("/v2/models/org/affine")).json()["versions"] == ["1", "2", "10"]
    one = await running.http.get("/v2/models/org/affine/versions/2")
    assert one.json()["versions"] == ["2"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"shape": [1, 3], "data": [1, 2, 3]}, "Input 'x': expected shape [-1, 4], got [1, 3]."),
        ({"datatype": "INT32"}, "Input 'x': expected datatype FP32, got INT32."),
        ({"data": [1]}, "Input 'x': expected 4 values for shape [1, 4], got 1."),
        ({"name": "z"}, "Unknown input 'z'; expected 'x'."),
        (
            {"shape": [-1, 4]},
            "Input 'x': 'shape' must hold whole numbers from 0 to 2^63-1, got -1.",
        ),
    ],
)
async def test_a_refusal_names_the_field_what_is_expected_and_what_came(running, inputs, message):
    found = await running.http.post(INFER, json={"inputs": [{**BODY["inputs"][0], **inputs}]})
    assert (found.status_code, found.json()) == (400, {"error": message})


async def test_a_failing_engine_is_told_without_its_words(serve):
    runtime = fake_runtime(
        id="affine", tasks=("infer",), inputs={"x": {"shape": (-1, 4)}}, fail_infer=True
    )
    running = await serve(runtime)
    found = await running.http.post(INFER, json=BODY)
    assert (found.status_code, found.json()) == (500, {"error": "internal error"})


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "image/png"])
async def test_a_body_of_another_type_is_refused(running, kind):
    found = await running.http.post(INFER, content=b"{}", headers={"content-type": kind})
    assert found.status_code == 415
    assert "Content-Type" in found.json()["error"]


async def test_what_curl_sends_by_itself_is_taken_for_json(running):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    found = await running.http.post(INFER, content=json.dumps(BODY), headers=headers)
    assert found.status_code == 200


@pytest.mark.parametrize(
    ("coding", "unpack"),
    [("gzip", gzip.decompress), ("deflate", zlib.decompress)],
)
async def test_an_answer_is_compressed_for_who_asks_for_just_that(running, coding, unpack):
    async with running.http.stream(
        "POST", INFER, json=BODY, headers={"accept-encoding": coding}
    ) as found:
        body = b"".join([part async for part in found.aiter_raw()])
    assert found.headers["content-encoding"] == coding
    assert json.loads(unpack(body))["outputs"][0]["data"] == [3, 5, 7, 9]


async def test_who_offers_several_codings_gets_none(running):
    found = await running.http.post(
        INFER, json=BODY, headers={"accept-encoding": "gzip, deflate, br"}
    )
    assert "content-encoding" not in found.headers


async def test_a_small_body_that_unpacks_to_a_large_one_is_refused(serve):
    running = await serve(model("affine", x=("FP32", (-1, 4))), limits={"max_body_mib": 1})
    bomb = gzip.compress(b" " * 2**21)
    assert len(bomb) < 4096
    found = await running.http.post(INFER, content=bomb, headers={"content-encoding": "gzip"})
    assert (found.status_code, found.json()) == (
        413,
        {"error": "The request body is larger than 1 MiB."},
    )


async def test_bf16_travels_as_numbers_and_as_bits(serve):
    running = await serve(model("halves", x=("BF16", (-1,))))
    tensor = {"name": "x", "shape": [2], "datatype": "BF16", "data": [1.5, -2]}
    asked: dict[str, Any] = {"inputs": [tensor], "outputs": [{"name": "out_x"}]}
    found = await running.http.post("/v2/models/halves/infer", json=asked)
    assert found.json()["outputs"][0]["data"] == [1.5, -2]
    asked["outputs"][0]["parameters"] = {"binary_data": True}
    found = await running.http.post("/v2/models/halves/infer", json=asked)
    assert found.content.endswith(b"\xc0\x3f\x00\xc0")


async def test_a_tensor_of_64_mib_goes_both_ways(serve):
    running = await serve(model("large", x=("UINT8", (-1,))), limits={"max_body_mib": 80})
    size = 2**26
    document = {
        "inputs": [
            {
                "name": "x",
                "shape": [size],
                "datatype": "UINT8",
                "parameters": {"binary_data_size": size},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(document).encode()
    found = await running.http.post(
        "/v2/models/large/infer",
        content=text + bytes(size - 1) + b"\x07",
        headers={"inference-header-content-length": str(len(text)), **OCTETS},
    )
    start = int(found.headers["inference-header-content-length"])
    assert len(found.content) == start + size
    assert found.content[-1] == 7


async def test_encoded_images_become_the_models_pixels(serve):
    running = await serve(model("pixels", x=("FP32", (-1, 2, 2, 3))))
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 30, 10)).save(file, "PNG")
    raw = packed(file.getvalue())
    tensor: dict[str, Any] = {"name": "x", "shape": [1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(text)), **OCTETS}
    path = "/v2/models/pixels/infer"
    found = await running.http.post(path, content=text + raw, headers=headers)
    (output,) = found.json()["outputs"]
    assert output["shape"] == [1, 2, 2, 3]
    assert output["data"][:3] == [21, 61, 401]
    single = await running.http.post(
        path, content=file.getvalue(), headers={"inference-header-content-length": "0", **OCTETS}
    )
    start = int(single.headers["inference-header-content-length"])
    pixels = np.frombuffer(single.content[start:], np.float32)
    assert pixels.tolist() == output["data"]


async def test_sequences_and_shared_memory_are_refused_by_name(running):
    for parameters, words in (
        ({"sequence_id": 3}, "sequences"),
        ({"shared_memory_region": "r"}, "shared_memory_region"),
    ):
        found = await running.http.post(INFER, json={**BODY, "parameters": parameters})
        assert found.status_code == 400
        assert words in found.json()["error"]
    found = await running.http.post(INFER, json={**BODY, "parameters": {"sequence_id": 0}})
    assert found.status_code == 200


async def test_beside_openai_the_first_protocol_has_the_paths_of_both(serve):
    runtime = model("affine", x=("FP32", (-1, 4)))
    for protocols, key in (
        (["kserve", "openai"], "model_version_status"),
        (["openai", "kserve"], "id"),
    ):
        running = await serve(runtime, protocols=protocols)
        assert key in (await running.http.get("/v1/models/affine")).json()
        assert (await running.http.get("/v1/models")).json()["object"] == "list"
        assert (await running.http.post(INFER, json=BODY)).status_code == 200


@pytest.mark.parametrize(
    ("tensor", "rest", "answered"),
    [
        (
            {"name": "x", "shape": [1, 4], "datatype": "FP32"},
            np.array([1, 2, 3, 4], np.float32),
            [3, 5, 7, 9],
        ),
        ({"name": "w", "shape": [2], "datatype": "BYTES"}, packed(b"a", b"bc"), ["a", "bc"]),
    ],
)
async def test_the_size_of_a_single_binary_input_may_be_left_out_as_for_ovms(
    serve, tensor, rest, answered
):
    running = await serve(model("x", x=("FP32", (-1, 4))), model("w", w=("BYTES", (-1,))))
    path = f"/v2/models/{tensor['name']}/infer"
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {**OCTETS, "inference-header-content-length": str(len(text))}
    found = await running.http.post(path, content=text + bytes(rest), headers=headers)
    assert found.json()["outputs"][0]["data"] == answered
    for wrong in (text, json.dumps({"inputs": [tensor, tensor]}).encode() + bytes(rest)):
        length = str(len(wrong) - (0 if wrong is text else len(bytes(rest))))
        headers["inference-header-content-length"] = length
        found = await running.http.post(path, content=wrong, headers=headers)
        assert found.status_code == 400
        assert "give either 'data' or the parameter" in found.json()["error"]
