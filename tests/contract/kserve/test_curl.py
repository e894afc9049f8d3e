"""curl and grpcurl, as people type them."""

import json

import pytest

from tests.contract.kserve.recordings import ROOT, model

PROTO = ("-import-path", str(ROOT / "protos"), "-proto", "kserve_inference.proto")
SERVICE = "inference.GRPCInferenceService"
# The command of OpenShift AI's documentation, for its OpenVINO Model Server runtime.
DOCUMENTED = (
    "curl -ks <host>/v2/models/<model_name>/infer"
    """ -d '{"model_name": "<model_name>", "inputs": [{"name": "<input>", "shape": [<shape>],"""
    """ "datatype": "<type>", "data": [<data>]}]}'"""
    " -H 'Authorization: Bearer <token>'"
)
ANSWER = {"name": "out_x", "datatype": "FP32", "shape": [1, 4], "data": [3, 5, 7, 9]}


@pytest.fixture
async def running(serve):
    return await serve(model("affine", x=("FP32", (-1, 4))))


async def test_the_documented_command_is_answered(running, run):
    command = DOCUMENTED
    for place, value in {
        "<host>": running.url,
        "<model_name>": "affine",
        "<input>": "x",
        "<shape>": "1, 4",
        "<type>": "FP32",
        "<data>": "1, 2, 3, 4",
        "<token>": "anything",
    }.items():
        command = command.replace(place, value)
    answer = json.loads(await run("sh", "-c", command))
    assert answer == {"model_name": "affine", "model_version": "1", "outputs": [ANSWER]}


async def test_curl_compresses_and_reads_what_is_compressed(running, run):
    body = '{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}'
    command = (
        f"printf '%s' '{body}' | gzip | curl -sS --fail-with-body --compressed"
        " -H 'content-type: application/json' -H 'content-encoding: gzip' --data-binary @-"
        f" {running.url}/v2/models/affine/infer"
    )
    assert json.loads(await run("sh", "-c", command))["outputs"] == [ANSWER]


@pytest.mark.parametrize("how", ["proto file", "reflection"])
async def test_grpcurl_infers(running, grpcurl, how):
    proto = PROTO if how == "proto file" else ()
    tensor = {"name": "x", "shape": ["1", "4"], "datatype": "FP32"}
    asked = {
        "model_name": "affine",
        "id": "7",
        "inputs": [{**tensor, "contents": {"fp32_contents": [1, 2, 3, 4]}}],
    }
    status, written = await grpcurl(
        *proto, "-d", json.dumps(asked), running.target, f"{SERVICE}/ModelInfer"
    )
    assert status == 0, written
    answer = json.loads(written)
    (output,) = answer["outputs"]
    fields = {key.replace("_", "").lower(): value for key, value in output["contents"].items()}
    assert fields == {"fp32contents": [3, 5, 7, 9]}
    assert answer["id"] == "7"


async def test_grpcurl_lists_the_service(running, grpcurl):
    status, listed = await grpcurl(running.target, "list", SERVICE)
    assert status == 0, listed
    rpcs = {line.rpartition(".")[2] for line in listed.split()}
    assert {"ServerLive", "ModelReady", "ModelMetadata", "ModelInfer", "ModelStreamInfer"} <= rpcs
