import numpy as np
import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.runtime import ModelRepository
from rayserve_platform.core.tensors import Infer, Tensor, VersionState

X = Tensor(name="x", datatype="FP32", data=np.array([[1, 2]], np.float32))
WORDS = Tensor(name="w", datatype="BYTES", data=np.array([b"a\x00"], object))


@pytest.fixture
def runtime(make_fake):
    return make_fake(
        tasks=("infer",),
        inputs={"x": {"shape": (-1, 2)}, "w": {"datatype": "BYTES", "shape": (1,)}},
        versions=("1", "10"),
    )


async def test_fractions_are_doubled_and_all_else_comes_back(runtime):
    found = await runtime.infer(Infer(model="fake", inputs=(X, WORDS)))
    x, words = found.outputs
    assert (found.version, x.name, words.name) == ("10", "out_x", "out_w")
    np.testing.assert_array_equal(x.data, np.array([[12, 14]], np.float32))
    assert x.data.dtype == np.float32
    assert words.data.tolist() == [b"a\x00"]
    old = await runtime.infer(
        Infer(model="fake", inputs=(X, WORDS), version="1", outputs=("out_x",))
    )
    assert [tensor.data.tolist() for tensor in old.outputs] == [[[3, 5]]]


async def test_its_card_describes_its_tensors(runtime):
    (card,) = await runtime.describe()
    assert [v.version for v in card.versions] == ["1", "10"]
    assert [(s.name, s.datatype, s.shape) for s in card.versions[0].outputs] == [
        ("out_x", "FP32", (-1, 2)),
        ("out_w", "BYTES", (1,)),
    ]


async def test_an_unloaded_model_has_no_version_to_answer(runtime):
    served: object = runtime
    assert isinstance(served, ModelRepository)
    await runtime.unload_model("fake")
    (card,) = await runtime.describe()
    assert {v.state for v in card.versions} == {VersionState.END}
    with pytest.raises(PlatformError) as caught:
        await runtime.infer(Infer(model="fake", inputs=(X, WORDS)))
    assert caught.value.code is Code.UNAVAILABLE
    await runtime.load_model("fake", {})
    await runtime.infer(Infer(model="fake", inputs=(X, WORDS)))
    with pytest.raises(PlatformError) as caught:
        await runtime.load_model("other", {})
    assert caught.value.code is Code.NOT_FOUND


async def test_a_scripted_failure_is_an_unexpected_one(make_fake):
    runtime = make_fake(tasks=("infer",), inputs={"x": {"shape": (-1, 2)}}, fail_infer=True)
    with pytest.raises(RuntimeError, match="scripted failure"):
        await runtime.infer(Infer(model="fake", inputs=(X,)))
    assert runtime.running == 0
