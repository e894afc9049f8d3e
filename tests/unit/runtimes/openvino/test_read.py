"""Settings that fit a model to what clients send, against numpy's arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from rayserve_platform.core.errors import Code
from rayserve_platform.core.tensors import TensorSpec
from tests.unit.runtimes.openvino.conftest import Start, asked, outputs, refusal
from tests.unit.runtimes.openvino.models import ir, stateful, sums, times

PICTURE = np.random.default_rng(2).integers(0, 256, (1, 6, 8, 3)).astype(np.uint8)


def pictures(path: Path) -> Path:
    """A model that gives each pixel back, in NCHW."""
    return ir(path, op.relu, ("image", (1, 3, 6, 8), ov.Type.f32))


async def test_a_client_may_send_another_layout(start: Start, tmp_path: Path) -> None:
    layout = {"image": "NHWC:NCHW", "y": "NHWC:NCHW"}
    runtime = await start(pictures(tmp_path / "m"), {"layout": layout})
    (card,) = await runtime.describe()
    shape = (1, 6, 8, 3)
    assert card.versions[0].inputs == (TensorSpec(name="image", datatype="FP32", shape=shape),)
    assert card.versions[0].outputs == (TensorSpec(name="y", datatype="FP32", shape=shape),)
    found = await outputs(runtime, asked(image=PICTURE.astype(np.float32)))
    np.testing.assert_array_equal(found["y"], PICTURE)


async def test_pictures_are_normalised_in_the_graph(start: Start, tmp_path: Path) -> None:
    mean, scale = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    model = {
        "layout": "NHWC:NCHW",
        "datatype": "UINT8",
        "color_format": "BGR:RGB",
        "mean": mean,
        "scale": scale,
    }
    runtime = await start(pictures(tmp_path / "m"), model)
    (card,) = await runtime.describe()
    assert card.versions[0].inputs[0].datatype == "UINT8"
    found = await outputs(runtime, asked(image=PICTURE))
    expected = (PICTURE[..., ::-1].astype(np.float32) - mean) / scale
    np.testing.assert_allclose(found["y"], np.maximum(expected, 0).transpose(0, 3, 1, 2), rtol=1e-5)


async def test_one_mean_is_for_all_channels(start: Start, tmp_path: Path) -> None:
    runtime = await start(times(tmp_path / "m"), {"mean": 1.0, "scale": {"x": 2.0}})
    found = await outputs(runtime, asked(x=np.full((1, 4), 5, np.float32)))
    assert found["y"].tolist() == [[2, 4, 6, 8]]


async def test_pictures_of_any_size_are_resized(start: Start, tmp_path: Path) -> None:
    model = {"layout": "NHWC:NCHW", "datatype": "UINT8", "resize": "nearest"}
    runtime = await start(pictures(tmp_path / "m"), model)
    (card,) = await runtime.describe()
    assert card.versions[0].inputs[0].shape == (1, -1, -1, 3)
    twice = PICTURE.repeat(2, axis=1).repeat(2, axis=2)
    found = await outputs(runtime, asked(image=twice))
    np.testing.assert_array_equal(found["y"], PICTURE.transpose(0, 3, 1, 2))


async def test_shapes_and_batch_size_change_a_models_own(start: Start, tmp_path: Path) -> None:
    one = times(tmp_path / "m", shape=(1, 4))
    for model, shape in (
        ({"batch_size": "auto"}, (-1, 4)),
        ({"batch_size": 3}, (3, 4)),
        ({"shape": [2, 4]}, (2, 4)),
        ({"shape": {"x": ["1:8", 4]}}, (-1, 4)),
        ({"shape": [-1, 4], "batch_size": 2}, (2, 4)),
    ):
        runtime = await start(one, model)
        (card,) = await runtime.describe()
        assert card.versions[0].inputs[0].shape == shape
        assert card.versions[0].outputs[0].shape == shape


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"shape": {"z": [1, 4]}}, "shape: the model has no 'z'; it has a, b"),
        ({"shape": [1, 4]}, "shape: the model has several inputs (a, b): give it by name"),
        ({"mean": 3.0}, "mean: the model has several inputs"),
        ({"datatype": {"z": "UINT8"}}, "datatype: the model has no 'z'"),
        ({"layout": {"z": "NC"}}, "layout: the model has no 'z'"),
        ({"layout": {"a": "NHWC:NCHW"}}, "don't fit the model"),
        ({"mean": {"a": [1.0, 2.0]}}, "don't fit the model"),
        ({"shape": {"a": [3, 4], "b": [3, 5]}}, "can't take these shapes"),
    ],
)
async def test_settings_that_do_not_fit_are_refused_by_name(
    start: Start, tmp_path: Path, model: dict[str, Any], words: str
) -> None:
    error = await refusal(start(sums(tmp_path / "m"), model))
    assert words in error.message
    assert "src/" not in error.message


async def test_a_model_with_a_state_is_refused(start: Start, tmp_path: Path) -> None:
    error = await refusal(start(stateful(tmp_path / "m")))
    assert "keeps state from one request to the next" in error.message


async def test_a_size_out_of_the_range_that_was_given_is_the_callers_mistake(
    start: Start, tmp_path: Path
) -> None:
    runtime = await start(times(tmp_path / "m"), {"shape": ["1:8", 4]})
    found = await outputs(runtime, asked(x=np.ones((8, 4), np.float32)))
    assert found["y"].shape == (8, 4)
    error = await refusal(runtime.infer(asked(x=np.ones((9, 4), np.float32))))
    assert error.code is Code.INVALID_ARGUMENT
    assert "'x' [9, 4]" in error.message
