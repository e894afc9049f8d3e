"""Every datatype goes in and comes out as it was, whatever its memory looks like."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino import opset13 as op

from rayserve_platform.core.tensors import DTYPES, Infer
from rayserve_platform.runtimes.openvino.tensors import ELEMENTS, to_openvino
from tests.unit.runtimes.openvino.conftest import Start, outputs, refusal, tensor
from tests.unit.runtimes.openvino.models import ir


@pytest.mark.parametrize("datatype", ELEMENTS)
async def test_a_tensor_of_every_datatype_survives(
    start: Start, tmp_path: Path, datatype: str
) -> None:
    place = ir(tmp_path / "m", lambda x: op.concat([x], 0), ("x", (-1, 3), ELEMENTS[datatype]))
    runtime = await start(place)
    data: Any = np.array([[1, 0, 3], [0, 1, 5]]).astype(DTYPES[datatype])
    if datatype == "BYTES":
        data = np.array([[b"", b"\x00\xff", b"caf\xc3\xa9"]], np.object_)
    if datatype == "BF16":
        data = np.array([[0x3F80, 0x4000, 0xC2F7]], np.uint16)
    request = Infer(model="m", inputs=(tensor("x", data, datatype),))
    (found,) = (await runtime.infer(request)).outputs
    assert (found.name, found.datatype, found.data.dtype) == ("y", datatype, DTYPES[datatype])
    np.testing.assert_array_equal(found.data, data)
    (card,) = await runtime.describe()
    assert card.versions[0].inputs[0].datatype == datatype


async def test_bf16_is_computed_as_such(start: Start, tmp_path: Path) -> None:
    place = ir(tmp_path / "m", lambda x: op.add(x, x), ("x", (-1,), ELEMENTS["BF16"]))
    runtime = await start(place)
    one_two = np.array([0x3F80, 0x4000], np.uint16)
    request = Infer(model="m", inputs=(tensor("x", one_two, "BF16"),))
    found = await outputs(runtime, request)
    assert found["y"].tolist() == [0x4000, 0x4080]


WHOLE = np.arange(12, dtype=np.float32).reshape(3, 4)


def off_by_one() -> np.ndarray:
    raw = np.frombuffer(b"\x00" + WHOLE.tobytes(), np.uint8)
    return raw[1:].view(np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    "array",
    [
        WHOLE,
        np.frombuffer(WHOLE.tobytes(), np.float32).reshape(3, 4),
        np.asfortranarray(WHOLE),
        np.repeat(WHOLE, 2, axis=1)[:, ::2],
        off_by_one(),
    ],
    ids=["plain", "read-only", "by columns", "with gaps", "misaligned"],
)
async def test_memory_of_any_kind_is_read_right(array: np.ndarray) -> None:
    np.testing.assert_array_equal(to_openvino(array, "FP32").data, WHOLE)


@pytest.mark.parametrize("array", [WHOLE, np.frombuffer(WHOLE.tobytes(), np.float32).reshape(3, 4)])
def test_whole_memory_is_not_copied(array: np.ndarray) -> None:
    assert to_openvino(array, "FP32").data.ctypes.data == array.ctypes.data


def test_empty_and_scalar_tensors_are_tensors() -> None:
    empty = np.frombuffer(b"", np.float32).reshape(0, 4)
    assert list(to_openvino(empty, "FP32").shape) == [0, 4]
    assert list(to_openvino(np.array(2, np.float32), "FP32").shape) == []


async def test_an_input_of_a_type_that_no_request_can_carry_is_refused(
    start: Start, tmp_path: Path
) -> None:
    import openvino as ov

    place = ir(tmp_path / "m", lambda x: op.convert(x, ov.Type.f32), ("x", (2,), ov.Type.f8e4m3))
    error = await refusal(start(place))
    assert "input 'x' is of the type f8e4m3" in error.message


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (2, 0)])
async def test_texts_of_every_shape_are_tensors(
    start: Start, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    texts = np.full(shape, b"caf\xc3\xa9\x00\xff", np.object_)
    place = ir(
        tmp_path / "m",
        lambda x: op.unsqueeze(x, op.constant(np.array([0]))),
        ("x", shape, ELEMENTS["BYTES"]),
    )
    found = await outputs(
        await start(place), Infer(model="m", inputs=(tensor("x", texts, "BYTES"),))
    )
    assert found["y"].tolist() == [texts.tolist()]
