"""TensorFlow Serving's REST API, in the shapes that its documentation gives."""

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.tensors import Inference, ModelVersion, Tensor, VersionState
from rayserve_platform.protocols.kserve.tfs import render, written
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.fake import FakeApp, FakeEngine, FakeTensor
from tests.conftest import fake_runtime
from tests.contract.kserve.recordings import model

PREDICT = "/v1/models/two:predict"
SIZES = (("a", 2), ("b", 3))
END = ModelVersion(version="4", state=VersionState.END, reason="it is no ONNX file")
TWO = {"x": ("FP32", (-1, 2)), "w": ("BYTES", (-1,))}


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def nested(item: Any, depth: int) -> Any:
    for _ in range(depth):
        item = [item]
    return item


@pytest.fixture
async def running(serve):
    return await serve(model("two", **TWO), model("affine", x=("FP32", (-1, 4))))


async def test_status_tells_of_every_version_or_one(serve):
    running = await serve(
        fake_runtime(id="m", tasks=("infer",), inputs={"x": {"shape": (1,)}}, versions=("1", "2"))
    )
    ok = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    both = {"model_version_status": [{"version": "1", **ok}, {"version": "2", **ok}]}
    assert (await running.http.get("/v1/models/m")).json() == both
    one = await running.http.get("/v1/models/m/versions/2")
    assert one.json() == {"model_version_status": [{"version": "2", **ok}]}
    assert (await running.http.get("/v1/models/m/versions/3")).status_code == 404
    assert (await running.http.get("/v1/models/nope")).status_code == 404
    assert (await running.http.get("/v1/config")).json() == {"m": both}


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ((), ("1", "the model could not be loaded")),
        ((END,), ("4", "it is no ONNX file")),
        ((replace(END, reason=""),), ("4", "the model could not be loaded")),
    ],
)
async def test_a_model_that_failed_to_load_is_shown_with_the_reason(serve, versions, told):
    class Broken(FakeRuntime):
        """A fake engine whose model failed."""

        async def describe(self):
            (card,) = await super().describe()
            return (replace(card, id="b", problem="no /secret/file", versions=versions), card)

    engine = FakeEngine(tasks=("infer",), inputs={"x": FakeTensor(shape=(1,))})
    running = await serve(Broken(FakeApp(model=Model(id="m"), fake=engine)))
    found = await running.http.get("/v1/models/b")
    version, reason = told
    status = {"error_code": "UNKNOWN", "error_message": reason}
    listed = {"model_version_status": [{"version": version, "state": "END", "status": status}]}
    assert (found.status_code, found.json()) == (200, listed)
    config = (await running.http.get("/v1/config")).json()
    assert config.keys() == {"b", "m"}
    assert config["b"] == listed
    assert (await running.http.get(f"/v1/models/b/versions/{version}")).json() == listed
    assert (await running.http.get("/v1/models/b/versions/9")).status_code == 404
    assert (await running.http.post("/v1/models/b:predict", json={})).status_code == 503


async def test_metadata_describes_the_tensors(running):
    found = (await running.http.get("/v1/models/two/metadata")).json()
    assert found["modelSpec"] == {"name": "two", "signatureName": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signatureDef"]["serving_default"]
    assert signature["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensorShape": {
            "dim": [{"size": "-1", "name": ""}, {"size": "2", "name": ""}],
            "unknownRank": False,
        },
        "name": "x",
    }
    assert signature["outputs"]["out_w"]["dtype"] == "DT_STRING"


async def test_rows_and_columns_are_answered_in_kind(running):
    rows = [{"x": [1, 2], "w": "a"}, {"x": [3, 4], "w": b64(b"\xff")}]
    found = await running.http.post(PREDICT, json={"instances": rows})
    assert found.json() == {
        "predictions": [
            {"out_x": [3, 5], "out_w": "a"},
            {"out_x": [7, 9], "out_w": b64(b"\xff")},
        ]
    }
    columns = {"x": [[1, 2], [3, 4]], "w": ["a", "b"]}
    found = await running.http.post(PREDICT, json={"inputs": columns})
    assert found.json() == {"outputs": {"out_x": [[3, 5], [7, 9]], "out_w": ["a", "b"]}}


async def test_a_single_input_and_output_need_no_name(running):
    path = "/v1/models/affine/versions/1:predict"
    for body in ({"instances": [[1, 2, 3, 4]]}, {"instances": [{"x": [1, 2, 3, 4]}]}):
        found = await running.http.post(path, json={**body, "signature_name": "serving_default"})
        assert found.json() == {"predictions": [[3, 5, 7, 9]]}
    found = await running.http.post(path, json={"inputs": [[1, 2, 3, 4]]})
    assert found.json() == {"outputs": [[3, 5, 7, 9]]}


async def test_pictures_come_in_base64(serve):
    running = await serve(model("pixels", x=("FP32", (-1, 1, 1, 3))))
    file = io.BytesIO()
    Image.new("RGB", (1, 1), (200, 30, 10)).save(file, "PNG")
    found = await running.http.post(
        "/v1/models/pixels:predict", json={"instances": [b64(file.getvalue())]}
    )
    assert found.json() == {"predictions": [[[[21, 61, 401]]]]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "Give either 'instances' or 'inputs'"),
        ({"instances": [], "inputs": []}, "Give either 'instances' or 'inputs'"),
        ({"instances": []}, "'instances' must be a list with one entry an example"),
        ({"instances": 5}, "'instances' must be a list with one entry an example"),
        ({"instances": [1]}, "instances[0] must be an object with the inputs x, w"),
        ({"instances": [{"x": [1, 2], "w": "a"}, {"x": [1, 2]}]}, "must have the same inputs"),
        ({"instances": [{"x": [1, 2], "z": "a"}]}, "Unknown input 'z'"),
        ({"instances": [{"x": [1, 2]}]}, "Input 'w' is missing"),
        ({"instances": [{"x": [1], "w": "a"}]}, "expected shape [-1, 2], got [1, 1]"),
        ({"instances": [{"x": ["a", 2], "w": "a"}]}, "FP32 data must be numbers, got 'a'"),
        ({"instances": [{"x": [1, 2], "w": {"b64": "!"}}]}, "expected valid base64"),
        ({"instances": [{"x": [b64(b"a"), 2], "w": "a"}]}, "expected valid base64"),
        ({"inputs": {"x": [[1, 2], [3]], "w": ["a"]}}, "the rows differ in length"),
        (
            {"inputs": {"x": [[1, 2]], "w": nested(b64(b"a"), 70)}},
            "'w' has more than 32 dimensions",
        ),
        ({"inputs": {"x": nested(1, 33), "w": ["a"]}}, "'x' has more than 32 dimensions"),
        ({"instances": [], "signature_name": "other"}, "'signature_name'"),
        ({"instances": [], "signature_name": []}, "'signature_name'"),
    ],
)
async def test_what_can_not_be_predicted_is_refused_by_name(running, body, words):
    found = await running.http.post(PREDICT, json=body)
    assert found.status_code == 400
    assert words in found.json()["error"]


async def test_a_scalar_is_answered_as_one(serve):
    running = await serve(model("one", x=("FP32", ())), model("word", w=("BYTES", ())))
    found = await running.http.post("/v1/models/one:predict", json={"inputs": 0.25})
    assert found.json() == {"outputs": 1.5}
    found = await running.http.post("/v1/models/word:predict", json={"inputs": "a"})
    assert found.json() == {"outputs": "a"}
    found = await running.http.post("/v1/models/word:predict", json={"inputs": b64(b"\xff")})
    assert found.json() == {"outputs": b64(b"\xff")}


@pytest.mark.parametrize(
    ("datatype", "value", "text"),
    [
        ("FP32", np.float32(1.1), b"1.1"),
        ("FP16", np.float16(0.5), b"0.5"),
        ("BF16", np.uint16(0x3FC0), b"1.5"),
        ("INT64", np.int64(-7), b"-7"),
        ("BOOL", np.bool_(True), b"true"),
        ("FP64", np.float64("nan"), b"null"),
    ],
)
def test_a_scalar_of_each_kind_is_written(datatype, value, text):
    output = Tensor(name="y", datatype=datatype, data=np.array(value))
    inference = Inference(model="m", outputs=(output,))
    assert written(inference, by_row=False) == b'{"outputs":' + text + b"}"


def test_outputs_of_different_lengths_have_no_rows():
    tensors = [Tensor(name=n, datatype="FP32", data=np.ones(s, np.float32)) for n, s in SIZES]
    inference = Inference(model="m", outputs=tuple(tensors))
    with pytest.raises(PlatformError, match="send 'inputs' instead of 'instances'"):
        render(inference, by_row=True)
    assert set(render(inference, by_row=False)["outputs"]) == {"a", "b"}
