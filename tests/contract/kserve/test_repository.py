"""Loading and unloading models while serving."""

import base64

import grpc
import pytest

from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.conftest import fake_runtime
from tests.contract.kserve.recordings import Several, model

INDEX, LOAD = "/v2/repository/index", "/v2/repository/models/affine/load"
UNLOAD = "/v2/repository/models/affine/unload"
ON = {"kserve": {"repository_api": True}}
BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture
async def running(serve):
    return await serve(model("affine", x=("FP32", (-1, 4))), **ON)


async def test_it_is_switched_off_unless_asked_for(serve):
    running = await serve(model("affine", x=("FP32", (-1, 4))))
    for path in (INDEX, LOAD, UNLOAD):
        for body in (b"", b"no JSON"):
            found = await running.http.post(path, content=body)
            assert found.status_code == 403
            assert "ingress.kserve.repository_api" in found.json()["error"]
    stub = GRPCInferenceServiceStub(running.channel)
    load = pb.RepositoryModelLoadRequest(model_name="affine")
    load.parameters["config"].SetInParent()
    for call in (
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="affine")),
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest()),
        stub.RepositoryModelLoad(load),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_model_is_unloaded_and_loaded_again(running):
    row = {"name": "affine", "version": "1", "state": "READY", "reason": ""}
    assert "model_repository" in (await running.http.get("/v2")).json()["extensions"]
    assert (await running.http.post(INDEX)).json() == [row]
    found = await running.http.post(UNLOAD, json={"parameters": {"unload_dependents": True}})
    assert (found.status_code, found.content) == (200, b"")
    assert (await running.http.post(INDEX)).json() == [{**row, "state": "UNAVAILABLE"}]
    assert (await running.http.post(INDEX, json={"ready": True})).json() == []
    assert (await running.http.get("/v2/models/affine/ready")).status_code == 503
    refused = await running.http.post("/v2/models/affine/infer", json=BODY)
    assert refused.status_code == 503
    assert refused.json() == {"error": "The model 'affine' has no available version."}
    assert (await running.http.post(LOAD)).status_code == 200
    assert (await running.http.post(INDEX, json={"ready": True})).json() == [row]
    assert (await running.http.post("/v2/models/affine/infer", json=BODY)).status_code == 200


async def test_the_same_over_grpc_with_either_field_for_the_name(running):
    stub = GRPCInferenceServiceStub(running.channel)
    # KServe's own interface has the model's name where Triton's has the repository's.
    await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(repository_name="affine"))
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
    assert [(m.name, m.version, m.state) for m in index.models] == [("affine", "1", "UNAVAILABLE")]
    assert not (await stub.ModelReady(pb.ModelReadyRequest(name="affine"))).ready
    await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="affine"))
    assert (await stub.ModelReady(pb.ModelReadyRequest(name="affine"))).ready
    for request, code in (
        (pb.RepositoryModelLoadRequest(model_name="nope"), grpc.StatusCode.NOT_FOUND),
        (pb.RepositoryModelLoadRequest(), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RepositoryModelLoad(request)
        assert caught.value.code() is code


async def test_parameters_reach_the_repository_files_as_bytes(serve):
    runtime = model("affine", x=("FP32", (-1, 4)))
    seen = []

    async def load_model(name, parameters):
        seen.append((name, parameters))

    runtime.load_model = load_model  # type: ignore[method-assign]
    running = await serve(runtime, **ON)
    encoded = base64.b64encode(b"\xff").decode()
    parameters = {"config": "{}", "file:1/model.onnx": encoded}
    assert (await running.http.post(LOAD, json={"parameters": parameters})).status_code == 200
    stub = GRPCInferenceServiceStub(running.channel)
    request = pb.RepositoryModelLoadRequest(model_name="affine")
    request.parameters["config"].string_param = "{}"
    request.parameters["file:1/model.onnx"].bytes_param = b"\xff"
    await stub.RepositoryModelLoad(request)
    assert seen == [("affine", {"config": "{}", "file:1/model.onnx": b"\xff"})] * 2


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (LOAD, {"parameters": {"file:1/m": "!"}}, 400, "not valid base64"),
        (LOAD, {"parameters": []}, 400, "'parameters' must be an object"),
        (LOAD, {"parameters": {"a": []}}, 400, "The parameter 'a'"),
        (INDEX, {"ready": "yes"}, 400, "'ready' must be true or false"),
        (LOAD.replace("affine", "nope"), {}, 404, "no model 'nope'"),
        (UNLOAD.replace("affine", "nope"), {}, 404, "no model 'nope'"),
    ],
)
async def test_what_can_not_be_done_is_refused_by_name(running, path, body, status, words):
    found = await running.http.post(path, json=body)
    assert found.status_code == status
    assert words in found.json()["error"]


async def test_of_several_models_the_one_that_is_meant_is_unloaded(serve):
    running = await serve(
        Several(model("one", x=("FP32", (-1,))), model("two", x=("FP32", (-1,)))), **ON
    )
    assert (await running.http.post("/v2/repository/models/two/unload")).status_code == 200
    states = {row["name"]: row["state"] for row in (await running.http.post(INDEX)).json()}
    assert states == {"one": "READY", "two": "UNAVAILABLE"}


async def test_an_engine_without_a_repository_says_so(serve):
    class Fixed:
        """A runtime with one model for good."""

        def __init__(self) -> None:
            self._fake = fake_runtime(id="affine", tasks=("embed",))
            self.describe = self._fake.describe

    running = await serve(Fixed(), **ON)
    found = await running.http.post(LOAD)
    assert found.status_code == 400
    assert "does not load or unload models" in found.json()["error"]
