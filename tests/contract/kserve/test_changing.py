"""Models and versions that change behind an ingress that knows an older card."""

import asyncio

import numpy as np
import pytest

from rayserve_platform.core import entry
from rayserve_platform.core.tensors import VersionState
from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.fake import FakeApp, FakeEngine, FakeTensor

X = {"name": "x", "shape": [1], "datatype": "FP32", "data": [3]}
RAW = {
    "content": np.array([3], np.float32).tobytes(),
    "headers": {"inference-header-content-length": "0"},
}


class Changing(FakeRuntime):
    """A fake engine whose versions a test changes."""

    def have(self, *versions: str) -> None:
        self._versions = dict.fromkeys(versions, VersionState.AVAILABLE)

    def rename(self, name: str) -> None:
        self._fake = FakeEngine(tasks=("infer",), inputs={name: FakeTensor(shape=(-1,))})


@pytest.fixture
def changing() -> Changing:
    engine = FakeEngine(tasks=("infer",), inputs={"x": FakeTensor(shape=(-1,))})
    return Changing(FakeApp(model=Model(id="m"), fake=engine))


@pytest.fixture
def at_once(monkeypatch):
    """A runtime is asked again for what is missed, however lately it was asked."""
    monkeypatch.setattr(entry, "MISS_TTL_S", 0.0)


async def test_a_request_without_a_version_means_the_one_that_there_is(serve, changing):
    running = await serve(changing)
    asks = (
        ("/v1/models/m:predict", {"json": {"instances": [3]}}),
        ("/v2/models/m/infer", RAW),
        ("/v2/models/m/infer", {"json": {"inputs": [X]}}),
    )
    for version in ("1", "2"):
        changing.have(version)
        for path, body in asks:
            found = await running.http.post(path, **body)
            assert found.status_code == 200, found.text
            assert changing.seen[-1].version is None
    assert (await running.http.post(asks[0][0], **asks[0][1])).json() == {"predictions": [8]}


async def test_a_version_that_is_new_is_known_when_it_is_asked_for(serve, changing, at_once):
    running = await serve(changing)
    assert (await running.http.get("/v2/models/m/versions/2/ready")).status_code == 404
    changing.have("1", "2")
    for path in ("/v2/models/m/versions/2/ready", "/v1/models/m/versions/2/metadata"):
        assert (await running.http.get(path)).status_code == 200
    changing.have("3")
    found = await running.http.post("/v1/models/m/versions/3:predict", json={"instances": [3]})
    assert found.json() == {"predictions": [9]}


async def test_a_model_without_a_version_is_looked_at_again(serve, changing, at_once):
    changing.have()
    running = await serve(changing)
    assert (await running.http.get("/v2/models/m/ready")).status_code == 503
    changing.have("1")
    assert (await running.http.get("/v2/models/m/ready")).status_code == 200


async def test_what_is_missed_often_is_asked_for_rarely(serve, changing):
    asked = []
    describe = changing.describe

    async def counted():
        asked.append(1)
        return await describe()

    changing.describe = counted
    running = await serve(changing)
    paths = [f"/v2/models/m/versions/{number}/ready" for number in range(2, 12)]
    found = await asyncio.gather(*map(running.http.get, paths))
    assert {answer.status_code for answer in found} == {404}
    assert len(asked) <= 2


async def test_tensors_of_a_new_version_are_known_at_once(serve, changing, at_once):
    running = await serve(changing)
    await running.http.get("/v2/models/m")
    changing.rename("z")
    assert (await running.http.get("/v2/models/m")).json()["inputs"][0]["name"] == "z"
    changing.rename("y")
    metadata = (await running.http.get("/v1/models/m/metadata")).json()["metadata"]
    assert "y" in metadata["signature_def"]["signatureDef"]["serving_default"]["inputs"]
    for name, path, body in (
        ("z", "/v1/models/m:predict", {"json": {"instances": [{"z": 3}]}}),
        ("x", "/v2/models/m/infer", RAW),
    ):
        changing.rename(name)
        assert (await running.http.post(path, **body)).status_code == 200
    described = await GRPCInferenceServiceStub(running.channel).ModelMetadata(
        pb.ModelMetadataRequest(name="m")
    )
    assert [tensor.name for tensor in described.inputs] == ["x"]
