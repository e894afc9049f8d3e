"""The verb of the runtime: what it answers, and what it refuses."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from rayserve_platform.core.cards import Task
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Embed
from rayserve_platform.core.runtime import ModelRepository
from rayserve_platform.core.tensors import Infer, TensorSpec
from rayserve_platform.runtimes import load
from rayserve_platform.runtimes.openvino.engine import OpenVINORuntime
from tests.unit.runtimes.openvino.conftest import (
    Start,
    asked,
    outputs,
    refusal,
    settings,
    tensor,
)
from tests.unit.runtimes.openvino.models import ir, sums, times

ONES = np.ones((1, 4), np.float32)


async def test_the_engine_is_found_by_its_name(tmp_path: Path) -> None:
    engine = load("openvino", settings(models_dir=str(tmp_path)), None)
    assert isinstance(engine, OpenVINORuntime)
    assert isinstance(engine, ModelRepository)
    assert (await refusal(engine.check_health())).code is Code.UNAVAILABLE
    error = await refusal(engine.embed(Embed(model="m", inputs=("a",))))
    assert error.code is Code.UNIMPLEMENTED


async def test_a_card_says_what_a_model_takes_and_gives(start: Start, tmp_path: Path) -> None:
    place = times(tmp_path / "m")
    runtime = await start(place, {"aliases": ["n"]})
    (card,) = await runtime.describe()
    assert (card.id, card.aliases, card.root) == ("m", ("n",), str(place))
    assert (card.runtime, card.platform) == ("openvino", "OpenVINO")
    assert card.tasks == {Task.INFER}
    assert card.size_bytes == sum(file.stat().st_size for file in place.iterdir())
    assert card.engine_version == f"openvino {ov.__version__.partition('-')[0]}"
    (version,) = card.versions
    assert (version.version, version.state) == ("1", "AVAILABLE")
    assert version.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
    assert version.outputs == (TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),)
    await runtime.check_health()


async def test_a_model_answers_to_its_aliases_and_its_version(start: Start, tmp_path: Path) -> None:
    runtime = await start(times(tmp_path / "m"), {"aliases": ["n"]})
    found = await runtime.infer(Infer(model="n", version="1", inputs=(tensor("x", ONES),)))
    assert (found.model, found.version) == ("m", "1")


async def test_outputs_come_in_the_order_they_are_asked_for(start: Start, tmp_path: Path) -> None:
    place = ir(tmp_path / "m", lambda x: [op.negative(x), op.abs(x)], ("x", (-1, 4), ov.Type.f32))
    runtime = await start(place)
    inputs = (tensor("x", -ONES),)
    for names in ((), ("y1",), ("y1", "y0"), ("y0", "y0")):
        found = await runtime.infer(Infer(model="m", inputs=inputs, outputs=names))
        assert tuple(one.name for one in found.outputs) == (names or ("y0", "y1"))
        assert all(one.data.min() == 1 for one in found.outputs)


async def test_inputs_may_come_in_any_order(start: Start, tmp_path: Path) -> None:
    place = ir(tmp_path / "m", op.subtract, ("a", (-1,), ov.Type.f32), ("b", (-1,), ov.Type.f32))
    runtime = await start(place)
    found = await outputs(
        runtime, asked(b=np.array([1.0], np.float32), a=np.array([3.0], np.float32))
    )
    assert found["y"].tolist() == [2]


@pytest.mark.parametrize(
    ("inputs", "names", "words"),
    [
        ([], (), ("'x'", "missing")),
        ([("z", ONES, None)], (), ("'z'", "expected 'x'")),
        ([("x", ONES, None), ("z", ONES, None)], (), ("'z'",)),
        ([("x", ONES, None), ("x", ONES, None)], (), ("'x'", "more than once")),
        ([("x", ONES.astype(np.int64), None)], (), ("'x'", "FP32", "INT64")),
        ([("x", ONES[0], None)], (), ("'x'", "[-1, 4]", "[4]")),
        ([("x", ONES[:, :3], None)], (), ("'x'", "[-1, 4]", "[1, 3]")),
        ([("x", ONES, None)], ("z",), ("'z'", "expected 'y'")),
    ],
)
async def test_a_request_that_does_not_fit_is_refused_by_name(
    start: Start,
    tmp_path: Path,
    inputs: Sequence[tuple[str, Any, str | None]],
    names: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    runtime = await start(times(tmp_path / "m"))
    request = Infer(model="m", inputs=tuple(tensor(*one) for one in inputs), outputs=names)
    error = await refusal(runtime.infer(request))
    assert error.code is Code.INVALID_ARGUMENT
    assert all(word in error.message for word in words), error.message


async def test_unknown_models_and_versions_are_not_found(start: Start, tmp_path: Path) -> None:
    runtime = await start(times(tmp_path / "m"))
    error = await refusal(runtime.infer(asked(model="x" * 1000, x=ONES)))
    assert error.code is Code.NOT_FOUND
    assert len(error.message) < 300
    request = Infer(model="m", version="7", inputs=(tensor("x", ONES),))
    error = await refusal(runtime.infer(request))
    assert error.code is Code.NOT_FOUND
    assert "'7'" in error.message


async def test_shapes_that_only_together_make_no_sense_are_the_callers_mistake(
    start: Start, tmp_path: Path
) -> None:
    runtime = await start(sums(tmp_path / "m"))
    wide, narrow = np.ones((2, 4), np.float32), np.ones((2, 3), np.float32)
    for _ in range(4):
        error = await refusal(runtime.infer(asked(a=wide, b=narrow)))
        assert error.code is Code.INVALID_ARGUMENT
        assert "'a' [2, 4], 'b' [2, 3]" in error.message
    await runtime.check_health()
    found = await outputs(runtime, asked(a=wide, b=wide))
    assert found["y"].tolist() == [[2] * 4] * 2


FLOAT = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("element", "fitting", "cut"),
    [
        (ov.Type.i64, [-(2**31), 2**31 - 1], [2**31, -(2**31) - 1, 2**40, -(2**63)]),
        (ov.Type.u64, [0, 2**31 - 1], [2**31, 2**40, 2**64 - 1]),
        (ov.Type.u32, [0, 2**31 - 1], [2**31, 2**32 - 1]),
        (ov.Type.f64, [-FLOAT, FLOAT], [1e300, -3.5e38, np.inf, -np.inf]),
    ],
)
async def test_numbers_that_openvino_would_compute_as_others_are_refused(
    start: Start, tmp_path: Path, element: Any, fitting: list[Any], cut: list[Any]
) -> None:
    kind = element.to_dtype().type

    def compare(x: Any) -> Any:
        return [op.greater(x, op.constant(kind(7))), op.maximum(x, op.constant(kind(7)))]

    runtime = await start(ir(tmp_path / "m", compare, ("x", (-1, 2), element)))
    good = [outputs(runtime, asked(x=np.array([[1, n]], kind))) for n in fitting]
    bad = [refusal(runtime.infer(asked(x=np.array([[1, n]], kind)))) for n in cut]
    errors, found = await asyncio.gather(asyncio.gather(*bad), asyncio.gather(*good))
    for one, number in zip(found, fitting, strict=True):
        assert one["y0"].tolist() == [[False, bool(number > 7)]]
        np.testing.assert_array_equal(one["y1"], np.maximum([[1, number]], 7).astype(kind))
    for error, number in zip(errors, cut, strict=True):
        assert (error.code, error.param) == (Code.INVALID_ARGUMENT, "x")
        assert f"holds {number}: OpenVINO computes" in error.message
    await runtime.check_health()


async def test_what_is_no_number_goes_in_and_comes_out(start: Start, tmp_path: Path) -> None:
    double = ir(tmp_path / "m", lambda x: op.multiply(x, x), ("x", (2,), ov.Type.f64))
    found = await outputs(await start(double), asked(x=np.array([np.nan, 3.0])))
    np.testing.assert_array_equal(found["y"], [np.nan, 9.0])


async def test_no_rows_in_give_no_rows_out(start: Start, tmp_path: Path) -> None:
    runtime = await start(times(tmp_path / "m"))
    found = await outputs(runtime, asked(x=ONES[:0]))
    assert found["y"].shape == (0, 4)


async def test_answers_stay_as_they_were_when_the_model_is_used_again(
    start: Start, tmp_path: Path
) -> None:
    runtime = await start(times(tmp_path / "m"))
    first = (await outputs(runtime, asked(x=ONES)))["y"]
    before = first.copy()
    await asyncio.gather(*(outputs(runtime, asked(x=ONES * i)) for i in range(20)))
    np.testing.assert_array_equal(first, before)


async def test_too_many_requests_are_refused_as_overload(start: Start, tmp_path: Path) -> None:
    # Nothing is computed before all are here: they wait for company for 10 s.
    engine = {"max_queued": 5, "max_delay_ms": 10_000, "max_batch_size": 32, "retry_after_s": 3}
    runtime = await start(times(tmp_path / "m"), openvino=engine)
    asking = [asyncio.create_task(outputs(runtime, asked(x=ONES))) for _ in range(5)]
    await asyncio.sleep(0)
    error = await refusal(runtime.infer(asked(x=ONES)))
    assert (error.code, error.retry_after_s) == (Code.RESOURCE_EXHAUSTED, 3)
    await runtime.stop()
    assert all(found["y"].shape == (1, 4) for found in await asyncio.gather(*asking))


async def test_a_model_may_have_an_engine_of_its_own(start: Start, tmp_path: Path) -> None:
    wrong = {"openvino": {"device": "GPU.77"}}
    with pytest.raises(PlatformError, match=r"GPU\.77"):
        await start(times(tmp_path / "m"), wrong)
