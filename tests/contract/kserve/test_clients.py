"""Clients that know nothing of us, each in its own process: tritonclient, KServe's, OVMS's own."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import fake_runtime
from tests.contract.kserve.recordings import Several, model

CLIENTS = Path(__file__).with_name("clients")
TWO = {"x": ("FP32", (-1, 2)), "w": ("BYTES", (-1,))}
X, W = [[3, 5], [7, 9]], ["a", "bé"]
ON = {"kserve": {"repository_api": True}}
MODEL = {
    "name": "two",
    "versions": ["1"],
    "platform": "fake",
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "w", "datatype": "BYTES", "shape": [-1]},
    ],
    "outputs": [
        {"name": "out_x", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "out_w", "datatype": "BYTES", "shape": [-1]},
    ],
}
ROW = {"name": "two", "version": "1", "state": "READY"}
UNKNOWN = "The model 'nope' does not exist."
WRONG_SHAPE = "Input 'x': expected shape [-1, 2], got [1, 3]."
EXTENSIONS = ["binary_tensor_data", "generate", "model_repository"]


@pytest.fixture
async def running(serve):
    return await serve(
        Several(model("two", **TWO), fake_runtime(id="llm", tasks=("generate",))), **ON
    )


@pytest.fixture
def ask(run):
    async def call(script: str, *arguments: str) -> Any:
        return json.loads(await run(sys.executable, str(CLIENTS / script), *arguments))

    return call


def as_text(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as protobuf's JSON has it: 64-bit numbers are text."""
    tensors = {
        key: [{**item, "shape": [str(size) for size in item["shape"]]} for item in metadata[key]]
        for key in ("inputs", "outputs")
    }
    return {**metadata, **tensors}


async def test_tritonclient_over_http(running, ask):
    got = await ask("triton_http.py", running.url.removeprefix("http://"))
    for how, answer in got["infer"].items():
        assert (answer["out_x"], answer["out_w"], answer["version"]) == (X, W, "1"), how
        assert answer["binary"] == (not how.endswith("JSON out")), how
        assert answer["id"] == ("7" if how.endswith("out") else None), how
    described = got["described"]
    assert described["model"] == MODEL
    assert described["server"]["extensions"] == EXTENSIONS
    ready = [described[key] for key in ("live", "ready", "model ready", "other version ready")]
    assert ready == [True, True, True, False]
    index, while_unloaded, after = got["repository"]
    assert {**ROW, "reason": ""} in index
    assert (while_unloaded, after) == (False, True)
    refused = got["refused"]
    assert refused["unknown model"][0] == "404"
    assert refused["unknown model"][1].startswith(UNKNOWN)
    assert refused["wrong shape"] == ["400", WRONG_SHAPE]
    assert refused["statistics"][0] == "404"
    assert got["aio"]["live"]
    assert got["aio"]["model"] == MODEL
    assert [(a["out_x"], a["out_w"], a["binary"]) for a in got["aio"]["answers"]] == [
        (X, W, True),
        (X, W, False),
    ]


async def test_tritonclient_over_grpc(running, ask):
    got = await ask("triton_grpc.py", running.target)
    for how, answer in got["infer"].items():
        assert (answer["out_x"], answer["out_w"], answer["version"]) == (X, W, "1"), how
        assert answer["id"] == ("7" if how == "plain" else ""), how
    described = got["described"]
    assert described["model"] == as_text(MODEL)
    assert described["server"]["extensions"] == EXTENSIONS
    ready = [described[key] for key in ("live", "ready", "model ready", "other version ready")]
    assert ready == [True, True, True, False]
    index, while_unloaded, after = got["repository"]
    assert ROW in index["models"]
    assert (while_unloaded, after) == (False, True)
    refused = got["refused"]
    assert refused["unknown model"][0] == "StatusCode.NOT_FOUND"
    assert refused["unknown model"][1].startswith(UNKNOWN)
    assert refused["wrong shape"] == ["StatusCode.INVALID_ARGUMENT", WRONG_SHAPE]
    assert refused["statistics"][0] == "StatusCode.UNIMPLEMENTED"
    stream = got["stream"]
    assert (stream["tensors"]["id"], stream["tensors"]["out_x"]) == ("1", X)
    assert UNKNOWN in stream["error"]
    for parts in (stream["parts"], got["aio"]["parts"]):
        assert len(parts) > 1
        assert [part["final"] for part in parts] == [False] * (len(parts) - 1) + [True]
        assert "".join(part["text"] for part in parts) == got["whole"]
    assert [answer["out_x"] for answer in got["aio"]["answers"]] == [X] * 3


async def test_kserves_own_clients(running, ask):
    got = await ask("kserve_sdk.py", running.url, running.target)
    answer = {"id": "7", "out_x": X, "out_w": W}
    rest, rpc = got["rest"], got["grpc"]
    assert [rest[key] for key in ("live", "ready", "model ready")] == [True] * 3
    assert (rest["JSON"], rest["binary"]) == (answer, answer)
    assert rest["unknown model"][0] == 404
    assert rest["unknown model"][1].startswith(UNKNOWN)
    rows = [{"out_x": x, "out_w": w} for x, w in zip(X, W, strict=True)]
    assert rest["v1"] == {"predictions": rows}
    ready = [rpc[key] for key in ("live", "ready", "model ready", "other ready")]
    assert ready == [True, True, True, False]
    assert (rpc["raw"], rpc["typed"]) == (answer, answer)
    assert rpc["unknown model"][0] == "NOT_FOUND"
    assert rpc["unknown model"][1].startswith(UNKNOWN)


async def test_ovmsclient(running, ask):
    got = await ask("ovms.py", running.url.removeprefix("http://"))
    assert (got["out_x"], got["out_w"]) == (X, W)
    assert got["status"] == {"1": {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
    assert got["metadata"] == {
        "model_version": 1,
        "inputs": {
            "x": {"dtype": "DT_FLOAT", "shape": [-1, 2]},
            "w": {"dtype": "DT_STRING", "shape": [-1]},
        },
        "outputs": {
            "out_x": {"dtype": "DT_FLOAT", "shape": [-1, 2]},
            "out_w": {"dtype": "DT_STRING", "shape": [-1]},
        },
    }
    assert UNKNOWN in got["unknown model"]
