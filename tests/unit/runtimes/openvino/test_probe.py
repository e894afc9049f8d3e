"""A failure is the caller's mistake where the model computes what it could compute before."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.runtimes.openvino.engine import OpenVINORuntime
from rayserve_platform.runtimes.openvino.lanes import FAILURES_LIMIT, Arrays, Lanes
from rayserve_platform.runtimes.openvino.probe import LEARNED_BYTES, Probe
from tests.unit.runtimes.openvino.conftest import (
    Start,
    asked,
    factor,
    look,
    outputs,
    put,
    refusal,
)
from tests.unit.runtimes.openvino.models import reshape

FREE = TensorSpec(name="x", datatype="FP32", shape=(-1, -1))


class Engine:
    """Computes nothing but what has `wanted` columns and no NaN, and nothing at all once broken."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.broken = False

    def __call__(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[int], /) -> Arrays:
        if self.broken or inputs[0].shape[-1] != self.wanted or np.isnan(inputs[0]).any():
            raise RuntimeError("scripted failure")
        return [inputs[0]]


def rows(columns: int, value: float = 1) -> list[NDArray[Any]]:
    return [np.full((2, columns), value, np.float32)]


@pytest.mark.parametrize("columns", [1, 64, 5])
async def test_an_engine_that_breaks_is_blamed_whatever_the_model_leaves_open(columns: int) -> None:
    engine = Engine(columns)
    probe = Probe(engine, (FREE,))
    lanes = Lanes([engine], max_rows=0, max_delay_s=0, max_queued=9, retry_after_s=1, probe=probe)
    await lanes.run(rows(columns), (0,))  # of 5 columns, nothing else is known to be computed
    for _ in range(FAILURES_LIMIT + 1):
        error = await refusal(lanes.run(rows(columns, float("nan")), (0,)))
        assert error.code is Code.INVALID_ARGUMENT
    assert not lanes.dead
    engine.broken = True
    for _ in range(FAILURES_LIMIT):
        assert not lanes.dead
        with pytest.raises(RuntimeError):
            await lanes.run(rows(columns), (0,))
    assert lanes.dead
    lanes.close()


def test_large_requests_are_not_kept_to_learn_from() -> None:
    engine = Engine(LEARNED_BYTES)
    probe = Probe(engine, (FREE,))
    probe.learn([np.zeros((1, LEARNED_BYTES), np.float32)])
    engine.broken = True
    assert probe.blame(engine, rows(5)) is not None


@pytest.mark.parametrize("known", [False, True])
async def test_values_that_a_model_cannot_compute_are_the_callers_mistake(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, known: bool
) -> None:
    runtime = await start(reshape(tmp_path / "m"))
    four = np.ones(4, np.float32)
    if known:
        found = await outputs(runtime, asked(x=four, shape=np.array([2, 2])))
        assert found["y"].tolist() == [[1, 1], [1, 1]]
    with caplog.at_level(logging.INFO):
        for _ in range(FAILURES_LIMIT + 1):
            error = await refusal(runtime.infer(asked(x=four, shape=np.array([3, 3]))))
            assert error.code is Code.INVALID_ARGUMENT
            assert "'x' [4], 'shape' [2]" in error.message
    await runtime.check_health()
    assert not any(record.exc_info for record in caplog.records)


class Dead:
    """Lanes whose every inference failed."""

    dead = True

    def close(self) -> None:
        """Hold nothing."""


def kill(runtime: OpenVINORuntime, model: str) -> None:
    for version in runtime._models[model]._versions.values():
        if version.loaded is not None:
            version.loaded.lanes.close()
            version.loaded = replace(version.loaded, lanes=Dead())  # type: ignore[arg-type]


async def test_a_dead_model_is_loaded_anew_once_and_takes_no_other_down(
    start: Start, tmp_path: Path
) -> None:
    put(tmp_path / "one", 1)
    put(tmp_path / "two", 2)
    runtime = await start(models_dir=str(tmp_path))
    kill(runtime, "one")
    await runtime.check_health()
    await look(runtime, 1)
    assert await factor(runtime, model="one") == 1
    kill(runtime, "one")
    await look(runtime)
    assert await factor(runtime, model="two") == 2
    await runtime.check_health()
    kill(runtime, "two")
    with pytest.raises(PlatformError, match="not available"):
        await runtime.check_health()
    await look(runtime, 1)
    await runtime.check_health()
