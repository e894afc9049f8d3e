"""Small models are computed in the event loop, and answer as they would by a thread."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as op

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.runtimes.openvino.engine import OpenVINORuntime
from rayserve_platform.runtimes.openvino.lanes import Arrays, Lanes
from rayserve_platform.runtimes.openvino.quick import LIMIT_S, Quick, is_quick
from tests.unit.runtimes.openvino.conftest import Start, asked, outputs, refusal
from tests.unit.runtimes.openvino.models import ir, reshape, times
from tests.unit.runtimes.openvino.test_lanes import Yours

MAX_QUEUED = 16


class Doubles:
    """Doubles its input, and remembers what it was asked and by which thread; it fails on NaN."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool]] = []

    def __call__(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[int], /) -> Arrays:
        here = threading.current_thread() is threading.main_thread()
        self.seen.append((len(inputs[0]), here))
        if np.isnan(inputs[0]).any():
            raise RuntimeError("scripted failure")
        made = [2 * inputs[0], -inputs[0]]
        return [made[place] for place in outputs]


@pytest.fixture
def doubles() -> Doubles:
    return Doubles()


@pytest.fixture
def quick(doubles: Doubles) -> Iterator[Callable[..., Quick]]:
    made: list[Quick] = []

    def make(max_rows: int = 8) -> Quick:
        lanes = Lanes(
            [doubles],
            max_rows=max_rows,
            max_delay_s=0,
            max_queued=MAX_QUEUED,
            retry_after_s=2,
            probe=Yours(),
        )
        made.append(Quick(lanes, doubles, max_rows=max_rows))
        return made[-1]

    yield make
    for one in made:
        one.close()


def rows(count: int, value: float = 1.0, width: int = 3) -> NDArray[np.float32]:
    return np.full((count, width), value, np.float32)


async def test_what_comes_in_one_turn_is_computed_together_and_shared_out(quick, doubles):
    made = quick()
    given = [rows(2, 1), rows(1, 2), rows(3, 3)]
    places = (0, 1, 0)
    found = await asyncio.gather(
        *(made.run([x], (place,)) for x, place in zip(given, places, strict=True))
    )
    assert doubles.seen == [(6, True)]
    for x, (y,), factor in zip(given, found, (2, -1, 2), strict=True):
        np.testing.assert_array_equal(y, factor * x)


async def test_more_rows_than_a_batch_has_take_several(quick, doubles):
    made = quick(max_rows=4)
    await asyncio.gather(*(made.run([rows(count)], (0,)) for count in (3, 1, 2, 4)))
    assert doubles.seen == [(4, True), (2, True), (4, True)]


async def test_a_model_that_does_not_batch_is_asked_one_by_one(quick, doubles):
    made = quick(max_rows=0)
    await asyncio.gather(*(made.run([rows(1)], (0,)) for _ in range(3)))
    assert doubles.seen == [(1, True)] * 3


@pytest.mark.parametrize("count", [0, 9])
async def test_what_is_no_part_of_a_batch_is_computed_by_a_thread(quick, doubles, count):
    ((y,), _) = await asyncio.gather(quick().run([rows(count)], (0,)), quick().run([rows(1)], (0,)))
    assert y.shape == (count, 3)
    assert sorted(doubles.seen) == sorted([(1, True), (count, False)])


async def test_a_failure_is_told_to_the_request_that_made_it(quick, doubles):
    made = quick()
    found: list[Any] = await asyncio.gather(
        *(made.run([rows(1, value)], (0,)) for value in (1, float("nan"), 3)),
        return_exceptions=True,
    )
    np.testing.assert_array_equal(found[0][0], rows(1, 2))
    np.testing.assert_array_equal(found[2][0], rows(1, 6))
    assert isinstance(found[1], PlatformError)
    assert found[1].message == "yours"
    assert not made.dead


async def test_a_request_that_is_given_up_is_not_computed(quick, doubles):
    made = quick()
    tasks = [asyncio.create_task(made.run([rows(count)], (0,))) for count in (1, 2)]
    asyncio.get_running_loop().call_soon(tasks[0].cancel)
    await asyncio.sleep(0)
    assert made.queued == 2
    await tasks[1]
    assert tasks[0].cancelled()
    assert doubles.seen == [(2, True)]


@pytest.mark.parametrize("max_rows", [0, 8])
async def test_no_more_wait_than_may(quick, doubles, max_rows):
    made = quick(max_rows)
    found: list[Any] = await asyncio.gather(
        *(made.run([rows(1, n)], (0,)) for n in range(MAX_QUEUED + 2)), return_exceptions=True
    )
    for n, (y,) in enumerate(found[:MAX_QUEUED]):
        np.testing.assert_array_equal(y, rows(1, 2 * n))
    for error in found[MAX_QUEUED:]:
        assert isinstance(error, PlatformError)
        assert (error.code, error.retry_after_s) == (Code.RESOURCE_EXHAUSTED, 2)
    await made.run([rows(1)], (0,))


async def test_what_came_before_the_end_is_answered_and_what_comes_after_refused(quick):
    made = quick()
    task = asyncio.create_task(made.run([rows(1)], (0,)))
    await asyncio.sleep(0)
    made.close()
    np.testing.assert_array_equal((await task)[0], rows(1, 2))
    error = await refusal(made.run([rows(1)], (0,)))
    assert error.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("datatype", "shape", "max_rows", "expected"),
    [
        ("FP32", (-1, 3), 8, True),
        ("INT64", (1, 3), 0, True),
        ("FP32", (-1, -1), 8, False),
        ("FP32", (-1, 3), 0, False),
        ("BYTES", (-1,), 8, False),
    ],
)
def test_only_a_model_whose_every_request_is_as_small_is_quick(
    doubles, datatype, shape, max_rows, expected
):
    spec = TensorSpec(name="x", datatype=datatype, shape=shape)
    assert is_quick(doubles, (spec,), max_rows=max_rows) == expected
    assert {count for count, _ in doubles.seen} == ({1, max_rows or 1} if expected else set())


def test_a_model_that_takes_its_time_or_fails_is_not_quick():
    def slow(inputs: Any, outputs: Any) -> Arrays:
        time.sleep(2 * LIMIT_S * len(inputs[0]))
        return [inputs[0]]

    def failing(inputs: Any, outputs: Any) -> Arrays:
        raise RuntimeError("scripted failure")

    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 3))
    assert not is_quick(slow, (spec,), max_rows=8)
    assert not is_quick(failing, (spec,), max_rows=8)


def served_by(runtime: OpenVINORuntime) -> Any:
    (version,) = runtime._models["m"]._versions.values()
    assert version.loaded is not None
    return version.loaded.lanes


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({}, Quick),
        ({"batching": "off"}, Lanes),  # any number of rows may come at once
        ({"performance_hint": "latency"}, Quick),
        ({"performance_hint": "throughput"}, Lanes),
        ({"streams": 1}, Lanes),
        ({"max_delay_ms": 1}, Lanes),
        ({"device": "AUTO"}, Lanes),
    ],
)
async def test_a_small_model_is_quick_where_no_setting_asks_for_threads(
    start: Start, tmp_path: Path, engine: dict[str, Any], expected: type
) -> None:
    runtime = await start(times(tmp_path / "m"), openvino=engine)
    assert isinstance(served_by(runtime), expected)
    found = await asyncio.gather(*(outputs(runtime, asked(x=rows(n, 4, 4))) for n in (1, 3, 40)))
    assert [one["y"].tolist() for one in found] == [[[4, 8, 12, 16]] * n for n in (1, 3, 40)]


async def test_a_graph_that_fails_on_some_numbers_is_left_to_the_threads(
    start: Start, tmp_path: Path
) -> None:
    runtime = await start(reshape(tmp_path / "m"))
    assert isinstance(served_by(runtime), Lanes)


def repeated(x: Any, times: Any) -> Any:
    """Double x as many times as a request says."""
    state = op.parameter([4], ov.Type.f32)
    always = op.constant(np.array(True))
    body = ov.Model([op.add(state, state), always], [state], "body")
    loop = op.loop(times, always)
    loop.set_function(body)
    loop.set_special_body_ports([-1, 1])
    doubled = body.get_results()[0].output(0)
    loop.set_merged_input(state, x.output(0), doubled)
    loop.get_iter_value(doubled, -1)
    return loop


def either(x: Any, which: Any) -> Any:
    """Double x or not, as a request says."""
    given = [op.parameter([4], ov.Type.f32) for _ in range(2)]
    double = ov.Model([op.add(given[0], given[0])], given[:1], "double")
    negative = ov.Model([op.negative(given[1])], given[1:], "negative")
    chosen = op.if_op(which)
    chosen.set_then_body(double)
    chosen.set_else_body(negative)
    chosen.set_input(x.output(0), *given)
    chosen.set_output(double.get_results()[0], negative.get_results()[0])
    return chosen


@pytest.mark.parametrize(
    ("build", "choice", "expected"),
    [(repeated, np.array(3), 8), (either, np.array(True), 2)],
    ids=["loop", "if"],
)
async def test_a_graph_whose_work_follows_from_a_request_is_left_to_the_threads(
    start: Start, tmp_path: Path, build: Any, choice: Any, expected: int
) -> None:
    inputs = ("x", (4,), ov.Type.f32), ("n", (), ov.Type(choice.dtype))
    runtime = await start(ir(tmp_path / "m", build, *inputs))
    found = await outputs(runtime, asked(x=np.ones(4, np.float32), n=choice))
    assert found["y"].tolist() == [expected] * 4
    assert isinstance(served_by(runtime), Lanes)
