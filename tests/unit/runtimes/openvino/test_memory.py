"""What a request's memory looks like changes no number, and whole memory is read where it lies."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import orjson
import pytest
from openvino import opset13 as op
from PIL import Image

from rayserve_platform.core.tensors import DATATYPES, Infer
from rayserve_platform.protocols.kserve.images import decode
from rayserve_platform.protocols.kserve.schema import read
from rayserve_platform.protocols.kserve.translate import to_infer
from rayserve_platform.runtimes.openvino import loaded
from rayserve_platform.runtimes.openvino.tensors import to_openvino
from tests.unit.runtimes.openvino.conftest import Start, outputs, tensor
from tests.unit.runtimes.openvino.models import ir

STRIDED = """
import sys
import numpy as np, openvino as ov
from openvino import opset13 as op
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.runtimes.openvino.loaded import _Request

given = [op.parameter(ov.PartialShape([-1, -1]), ov.Type.f32) for _ in range(3)]
total = op.add(op.add(given[0], given[1]), given[2])
compiled = ov.Core().compile_model(ov.Model([op.result(total)], given), "CPU")
specs = [TensorSpec(name=name, datatype="FP32", shape=(-1, -1)) for name in "abc"]
for here in (False, True):
    request = _Request(compiled, specs, specs[:1], here=here)
    for side in (3, 64, 1500):
        arrays = [np.random.default_rng(i).random((side, side), np.float32).T for i in range(3)]
        (found,) = request(arrays, (0,))
        if not np.array_equal(found, arrays[0] + arrays[1] + arrays[2]):
            sys.exit(f"{side} x {side}: wrong numbers")
"""
"""A process of its own: memory that is read after it was freed may end one."""
PASSED_ON = """
import sys
import numpy as np, openvino as ov
from openvino import opset13 as op
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.runtimes.openvino.loaded import _Request, passed_on

given = [op.parameter(ov.PartialShape([-1, 500]), ov.Type.f32) for _ in range(2)]
same = op.convert(op.convert(given[1], ov.Type.f16), ov.Type.f32)
model = ov.Model([op.result(op.relu(given[0])), op.result(same)], given)
compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
specs = [TensorSpec(name=name, datatype="FP32", shape=(-1, 500)) for name in "ab"]
request = _Request(compiled, specs, specs, copied=passed_on(model))
kept = []
for rows in (1, 200, 3, 200, 1, 50):
    arrays = [np.full((rows, 500), rows + i, np.float32) for i in range(2)]
    kept.append((rows, arrays))
    for one, array in zip(request(arrays, (0, 1)), arrays, strict=True):
        if not np.array_equal(one, array):
            sys.exit(f"{rows} rows: wrong numbers")
if any((array != rows + i).any() for rows, arrays in kept for i, array in enumerate(arrays)):
    sys.exit("an input was written to")
"""


@pytest.mark.parametrize("script", [STRIDED, PASSED_ON], ids=["strided", "passed on"])
def test_memory_is_neither_read_too_late_nor_written(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("element", [ov.Type.f32, ov.Type.u8, ov.Type.f16])
async def test_a_picture_reaches_the_model_as_its_pixels(
    start: Start, tmp_path: Path, element: Any
) -> None:
    shape = (-1, 224, 224, 3)
    two = op.constant(np.float32(2))
    doubled = ir(
        tmp_path / "m",
        lambda x: op.multiply(op.convert(x, ov.Type.f32), two),
        ("x", shape, element),
    )
    runtime = await start(doubled)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8)
    files = []
    for one in pixels:
        file = io.BytesIO()
        Image.fromarray(one).save(file, "PNG")
        files.append(file.getvalue())
    (spec,) = (await runtime.describe())[0].versions[0].inputs
    data = decode(spec, files)
    assert data.flags.c_contiguous
    request = Infer(model="m", inputs=(tensor("x", data, spec.datatype),))
    found = await outputs(runtime, request)
    np.testing.assert_array_equal(found["y"], 2 * pixels[..., ::-1].astype(np.float32))


def address(buffer: bytes | memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


def sent(data: np.ndarray) -> tuple[bytes, memoryview]:
    """Return a request's JSON, and the data behind it where it lies in the request's body."""
    datatype = DATATYPES[data.dtype]
    size = {"binary_data_size": data.nbytes}
    given = {"name": "x", "shape": data.shape, "datatype": datatype, "parameters": size}
    text = orjson.dumps({"inputs": [given]})
    # Blanks, so that the data is aligned: all `bytes` begin at a multiple of 16.
    text += b" " * (-(address(text) + len(text)) % 16)
    return text, memoryview(text + data.tobytes())[len(text) :]


@pytest.mark.parametrize("engine", [{}, {"streams": 1}], ids=["in the event loop", "by a thread"])
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8])
async def test_the_model_reads_a_request_where_it_came_in(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any, kind: Any
) -> None:
    seen: list[int] = []
    lend = to_openvino

    def watched(array: Any, datatype: str) -> Any:
        made = lend(array, datatype)
        seen.append(made.data.ctypes.data)
        return made

    double = ir(tmp_path / "m", lambda x: op.add(x, x), ("x", (-1, 4), ov.Type(np.dtype(kind))))
    runtime = await start(double, openvino=engine)
    monkeypatch.setattr(loaded, "to_openvino", watched)
    data = np.arange(40).astype(kind).reshape(10, 4)
    text, rest = sent(data)
    (card,) = await runtime.describe()
    found = await outputs(runtime, to_infer(read(text), rest, card, None))
    np.testing.assert_array_equal(found["y"], 2 * data)
    assert seen == [address(rest)]
