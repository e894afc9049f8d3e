"""Requests are computed together only where that changes no answer."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from openvino import opset13 as op

from rayserve_platform.core.errors import Code
from tests.unit.runtimes.openvino.conftest import Start, asked, outputs, refusal, settings
from tests.unit.runtimes.openvino.models import ir, times

ROWS = ("x", (-1, 4), ov.Type.f32)
AXIS_0, AXIS_1 = (op.constant(np.array([axis])) for axis in (0, 1))
FIFTY = op.constant(np.float32(50))


def batched(runtime: Any) -> bool:
    (version,) = runtime._models["m"]._versions.values()
    return bool(version.loaded.batched)


@pytest.mark.parametrize(
    ("build", "inputs", "expected"),
    [
        (lambda x: op.softmax(x, 1), [ROWS], True),
        (lambda x: op.softmax(x, 0), [ROWS], False),
        (lambda x: op.subtract(x, op.reduce_mean(x, AXIS_0, True)), [ROWS], False),
        (lambda x: op.cum_sum(x, op.constant(np.array(0))), [ROWS], False),
        (lambda x: op.reduce_sum(x, AXIS_0, False), [ROWS], False),
        (lambda x: op.softmax(x, 1), [("x", (3, 4), ov.Type.f32)], False),
        (lambda a, b: op.matmul(a, b, False, True), [("a", *ROWS[1:]), ("b", *ROWS[1:])], False),
        (op.add, [("a", *ROWS[1:]), ("b", *ROWS[1:])], True),
        (lambda x: op.reduce_max(x, AXIS_1, True), [("x", (-1, -1), ov.Type.i64)], True),
        (op.abs, [("x", (-1, 64, -1, 2), ov.Type.f16)], True),
        # Numbers that never differ tell nothing.
        (lambda x: op.multiply(x, op.constant(np.float32(0))), [ROWS], False),
        # A class that small numbers never change.
        (lambda x: op.greater(op.reduce_sum(x, AXIS_1, True), FIFTY), [ROWS], True),
        # A part of the rows that does touch the others.
        (lambda x: [op.abs(x), op.softmax(x, 0)], [ROWS], False),
    ],
)
async def test_a_trial_finds_out_whether_rows_are_independent(
    start: Start, tmp_path: Path, build: Any, inputs: Any, expected: bool
) -> None:
    runtime = await start(ir(tmp_path / "m", build, *inputs))
    assert batched(runtime) is expected


async def test_a_scale_that_all_rows_share_keeps_them_apart(start: Start, tmp_path: Path) -> None:
    quantized = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4])
        for name in ("x", "y")
    ]
    graph = onnx.helper.make_graph(quantized, "quantized", tensors[:1], tensors[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    assert not batched(await start(tmp_path))


async def test_rows_that_a_model_stretches_meet_no_other_request(
    start: Start, tmp_path: Path
) -> None:
    runtime = await start(ir(tmp_path / "m", op.add, ("a", *ROWS[1:]), ("b", *ROWS[1:])))
    assert batched(runtime)
    one, two = np.full((1, 4), 5, np.float32), np.array([[1] * 4, [2] * 4], np.float32)
    pairs = [(one, two), (two, one), (two, two), (one, one)] * 8
    found = await asyncio.gather(*(outputs(runtime, asked(a=a, b=b)) for a, b in pairs))
    for (a, b), answer in zip(pairs, found, strict=True):
        np.testing.assert_array_equal(answer["y"], a + b)


async def test_a_setting_decides_instead(start: Start, tmp_path: Path) -> None:
    plain = times(tmp_path / "m")
    assert not batched(await start(plain, openvino={"batching": "off"}))
    assert not batched(await start(plain, openvino={"max_batch_size": 1}))
    over = ir(tmp_path / "n", lambda x: op.softmax(x, 0), ROWS)
    assert batched(await start(over, openvino={"batching": "on"}))
    fixed = times(tmp_path / "o", shape=(1, 4))
    error = await refusal(start(fixed, openvino={"batching": "on"}))
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message.startswith("batching: 'on' needs a free first axis, and 'x' has none")
    assert batched(await start(fixed, {"batch_size": "auto"}, openvino={"batching": "on"}))


async def test_many_requests_at_once_get_what_each_gets_alone(start: Start, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    weights = op.constant(generator.normal(size=(16, 8)).astype(np.float32))
    build: Any = lambda x: op.softmax(op.matmul(op.tanh(x), weights, False, False), 1)  # noqa: E731
    runtime = await start(ir(tmp_path / "m", build, ("x", (-1, 16), ov.Type.f32)))
    inputs = [generator.normal(size=(1 + i % 5, 16)).astype(np.float32) for i in range(100)]
    alone = [(await outputs(runtime, asked(x=x)))["y"] for x in inputs]
    together = await asyncio.gather(*(outputs(runtime, asked(x=x)) for x in inputs))
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many["y"], one, rtol=1e-5, atol=1e-7)


async def test_texts_are_batched_too(start: Start, tmp_path: Path) -> None:
    place = ir(tmp_path / "m", lambda s: op.concat([s], 0), ("s", (-1, 2), ov.Type.string))
    runtime = await start(place)
    texts = [np.array([[b"a", b"\xff\x00b"]], np.object_), np.array([[b"", b"cc"]] * 2, np.object_)]
    found = await asyncio.gather(*(outputs(runtime, asked(s=text)) for text in texts))
    assert [one["y"].tolist() for one in found] == [text.tolist() for text in texts]


async def test_properties_fit_the_cpus_that_are_reserved() -> None:
    from rayserve_platform.runtimes.openvino.loaded import properties

    def made(**engine: Any) -> Any:
        return properties(settings(models_dir="/m", openvino=engine).openvino, 3)

    assert made() == {
        "INFERENCE_NUM_THREADS": 3,
        "ENABLE_CPU_PINNING": False,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    assert made(threads=2, streams=2)["INFERENCE_NUM_THREADS"] == 2
    hinted = made(performance_hint="throughput", precision="dynamic")
    assert hinted["PERFORMANCE_HINT"] == "THROUGHPUT"
    assert not hinted.keys() & {"NUM_STREAMS", "INFERENCE_PRECISION_HINT"}
    assert made(device="GPU.1") == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    assert made(cache_dir="/c", plugin_config={"NUM_STREAMS": 4}).items() >= {
        ("CACHE_DIR", "/c"),
        ("NUM_STREAMS", 4),
    }


@pytest.mark.parametrize(
    "engine",
    [
        {"device": "AUTO"},
        {"device": "MULTI:CPU"},
        {"device": "HETERO:CPU"},
        {"performance_hint": "throughput"},
        {"performance_hint": "cumulative_throughput", "device": "AUTO:CPU"},
        {"streams": 2, "threads": 2},
        {"precision": "bf16"},
        {"precision": "dynamic"},
    ],
)
async def test_every_way_to_run_answers_alike(
    start: Start, tmp_path: Path, engine: dict[str, Any]
) -> None:
    runtime = await start(times(tmp_path / "m"), openvino=engine)
    found = await outputs(runtime, asked(x=np.ones((2, 4), np.float32)))
    assert found["y"].tolist() == [[1, 2, 3, 4]] * 2
    await runtime.check_health()


async def test_a_device_that_is_not_here_is_refused_without_openvinos_text(
    start: Start, tmp_path: Path
) -> None:
    error = await refusal(start(times(tmp_path / "m"), openvino={"device": "GPU.77"}))
    assert error.message == "the model can't be compiled for GPU.77; the log says why"
    wrong = {"plugin_config": {"NO_SUCH_THING": 1}}
    error = await refusal(start(times(tmp_path / "m"), openvino=wrong))
    assert error.message == "the model can't be compiled for CPU; the log says why"


async def test_compiled_models_are_kept_where_a_folder_is_given(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "compiled"
    await start(times(tmp_path / "m"), openvino={"cache_dir": str(folder)})
    assert list(folder.glob("*.blob"))
