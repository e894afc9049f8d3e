"""Tensors, and models that are loaded and unloaded, over a Serve handle to the host and back.

The handle pickles what crosses it, as Serve does with the options that `RemoteRuntime` asks for.
"""

import pickle
from typing import Any

import numpy as np
import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import DTYPES, Infer, Tensor
from rayserve_platform.protocols.kserve.tensors import objects
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.serving.host import RuntimeHost
from rayserve_platform.serving.remote import RemoteRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.fake import FakeApp, FakeEngine, FakeTensor

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 2**8 - 1],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-(2**7), 2**7 - 1],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [1.5, -2.0],
    "FP32": [1.5, -0.25],
    "FP64": [1.5, -1e300],
    "BF16": [0x3FC0, 0xC000],
    "BYTES": [b"\x00\xff", b""],
}
COMPUTED = {"FP16": [4.0, -3.0], "FP32": [4.0, 0.5], "FP64": [4.0, 1 - 2e300]}
"""2x + 1, which the fake engine answers numbers with a fraction with; all else as it came."""


class Host(RuntimeHost):
    """The host without Serve, which alone awaits its start and its end."""

    def __init__(self, engine: FakeRuntime) -> None:
        self._engine = engine

    def __del__(self) -> None:  # type: ignore[override]
        pass


class Handle:
    """A Serve handle to a host in this process."""

    def __init__(self, host: RuntimeHost) -> None:
        self._host = host

    def options(
        self, *, stream: bool, request_serialization: str, response_serialization: str
    ) -> "Handle":
        assert not stream
        assert (request_serialization, response_serialization) == ("pickle", "pickle")
        return self

    def __getattr__(self, verb: str) -> Any:
        host = self._host

        class Method:
            async def remote(self, *args: Any) -> Any:
                sent = pickle.loads(pickle.dumps(args, protocol=pickle.HIGHEST_PROTOCOL))
                answer = await getattr(host, verb)(*sent)
                return pickle.loads(pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))

        return Method()


@pytest.fixture
def remote() -> RemoteRuntime:
    """A runtime behind a handle, whose model has an input of each datatype and one of scalars."""
    inputs = {kind: FakeTensor(datatype=kind, shape=(-1, 1)) for kind in DTYPES}
    engine = FakeEngine(tasks=("infer",), inputs={**inputs, "scalar": FakeTensor(shape=())})
    host = Host(FakeRuntime(FakeApp(model=Model(id="m"), fake=engine)))
    return RemoteRuntime(lambda: Handle(host))


def tensor(kind: str, values: list[Any]) -> Tensor:
    data = objects(values) if kind == "BYTES" else np.array(values, DTYPES[kind])
    return Tensor(name=kind, datatype=kind, data=data.reshape(-1, 1))


def request(**fields: Any) -> Infer:
    scalar = Tensor(name="scalar", datatype="FP32", data=np.array(0.5, np.float32))
    inputs = (*(tensor(kind, VALUES[kind]) for kind in DTYPES), scalar)
    return Infer(**{"model": "m", "inputs": inputs, **fields})


async def test_tensors_of_every_datatype_go_over_the_handle_and_back(remote):
    assert VALUES.keys() == DTYPES.keys()
    answer = await remote.infer(request(parameters={"a": 1, "b": "c"}, request_id="7"))
    assert (answer.model, answer.version) == ("m", "1")
    *many, scalar = answer.outputs
    assert [(found.name, found.datatype) for found in many] == [(f"out_{k}", k) for k in DTYPES]
    for found in many:
        kind = found.datatype
        assert found.data.dtype == DTYPES[kind]
        want = tensor(kind, COMPUTED.get(kind, VALUES[kind])).data
        np.testing.assert_array_equal(found.data, want)
    assert (scalar.data.shape, scalar.data) == ((), 2.0)


async def test_a_read_only_view_of_a_request_body_crosses_as_well(remote):
    body = memoryview(b"\x01" * 3 + np.array([1.5, -0.25], np.float32).tobytes())
    view = np.frombuffer(body[3:], np.float32).reshape(2, 1)
    given = [each for each in request().inputs if each.name != "FP32"]
    asked = request(
        inputs=(*given, Tensor(name="FP32", datatype="FP32", data=view)), outputs=("out_FP32",)
    )
    (found,) = (await remote.infer(asked)).outputs
    np.testing.assert_array_equal(found.data.ravel(), COMPUTED["FP32"])


async def test_a_refused_inference_is_refused_on_this_side(remote):
    with pytest.raises(PlatformError) as caught:
        await remote.infer(request(version="9"))
    error = caught.value
    assert (error.code, error.param) == (Code.NOT_FOUND, "model_version")
    assert error.message == "The model 'm' has no version '9'. Available: 1."


async def test_a_model_is_unloaded_and_loaded_over_the_handle(remote):
    await remote.unload_model("m")
    with pytest.raises(PlatformError) as caught:
        await remote.infer(request())
    assert caught.value.code is Code.UNAVAILABLE
    await remote.load_model("m", {"config": "{}", "file:1/model.onnx": b"\xff\x00"})
    assert (await remote.infer(request())).version == "1"
    with pytest.raises(PlatformError) as caught:
        await remote.load_model("other", {})
    assert caught.value.code is Code.NOT_FOUND
