"""A model of each format computes what the framework that made it computes."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx.reference
import pytest
import torch
from transformers import AutoModel

from rayserve_platform.core.errors import Code
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.runtimes.openvino import convert, to_ir
from tests.unit.runtimes.embedding import tiny
from tests.unit.runtimes.openvino.conftest import Start, asked, outputs, refusal
from tests.unit.runtimes.openvino.models import Mlp, mlp_onnx, times

X = np.random.default_rng(7).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converts in this process, which has torch already."""

    def run(order: dict[str, object], directory: Path) -> None:
        to_ir.convert({**order, "out": str(directory / "model.xml")})

    monkeypatch.setattr(convert, "_convert", run)


async def test_ir(start: Start, tmp_path: Path) -> None:
    runtime = await start(times(tmp_path / "m"))
    found = await outputs(runtime, asked(x=X))
    np.testing.assert_allclose(found["y"], X * [1, 2, 3, 4], rtol=1e-6)


async def test_onnx(start: Start, tmp_path: Path) -> None:
    model = mlp_onnx(tmp_path / "1/m.onnx")
    (expected,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": X})
    runtime = await start(tmp_path)
    found = await outputs(runtime, asked(x=X))
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-3)


async def as_computed(start: Start, folder: Path, place: str) -> None:
    """Serves the model; it takes the framework's inputs and answers its outputs, by its names."""
    theirs = json.loads((folder / "computed.json").read_text())[place]
    runtime = await start(folder / place)
    given: dict[str, Any] = {n: np.array(x, np.float32) for n, x in theirs["inputs"].items()}
    found = await outputs(runtime, asked(**given))
    assert found.keys() == theirs["outputs"].keys()
    for name, expected in theirs["outputs"].items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-3)


@pytest.mark.parametrize("place", ["saved_model", "frozen.pb", "frozen.pbtxt", "model.tflite"])
async def test_tensorflow(start: Start, tensorflow_models: Path, place: str) -> None:
    await as_computed(start, tensorflow_models, place)


async def test_paddle(start: Start, paddle_models: Path) -> None:
    await as_computed(start, paddle_models, "paddle")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
async def test_torchscript_with_declared_inputs(
    start: Start, tmp_path: Path, in_process: None
) -> None:
    module = Mlp().eval()
    torch.jit.save(torch.jit.trace(module, torch.from_numpy(X)), tmp_path / "m.pt")
    inputs = {"features": {"datatype": "FP32", "shape": [-1, 4]}}
    runtime = await start(tmp_path / "m.pt", {"inputs": inputs})
    found = await outputs(runtime, asked(features=X))
    expected = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(found["output_0"], expected, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
async def test_torchscript_without_inputs_says_how_to_declare_them(
    start: Start, tmp_path: Path
) -> None:
    torch.jit.save(torch.jit.trace(Mlp(), torch.from_numpy(X)), tmp_path / "m.pt")
    error = await refusal(start(tmp_path))
    assert error.code is Code.INVALID_ARGUMENT
    assert "declare them in 'inputs'" in error.message


async def test_an_exported_program_is_converted_in_another_process(
    start: Start, tmp_path: Path
) -> None:
    module = Mlp().eval()
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.from_numpy(X),), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "m.pt2")
    runtime = await start(tmp_path)
    (card,) = await runtime.describe()
    assert card.versions[0].inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
    (found,) = (await outputs(runtime, asked(x=X))).values()
    expected = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3)


async def test_an_encoder_of_transformers_gives_hidden_states_and_their_mean(
    start: Start, tmp_path: Path, in_process: None
) -> None:
    folder = tiny.chain(tiny.bert(tmp_path / "m"), "Pooling", "Normalize")
    ids = np.array([[2, 5, 6, 3], [2, 9, 3, 0]], np.int64)
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.int64)
    theirs = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = theirs(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
        ).last_hidden_state.numpy()
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    runtime = await start(folder)
    found = await outputs(runtime, asked(input_ids=ids, attention_mask=mask))
    np.testing.assert_allclose(found["last_hidden_state"], hidden, rtol=1e-3, atol=1e-5)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(found["sentence_embedding"], unit, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["m.onnx", "m.pb", "m.tflite", "m.pdmodel", "m.xml"])
async def test_a_damaged_file_is_refused_without_openvinos_text(
    start: Start, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"damaged" * 9)
    (tmp_path / "m.bin").write_bytes(b"")
    error = await refusal(start(tmp_path))
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message.startswith("OpenVINO can't read the model as ")
    assert str(tmp_path) not in error.message
    assert "src/" not in error.message


async def test_a_model_that_torch_cannot_load_is_refused_without_its_text(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    torch.export.save(torch.export.export(Mlp(), (torch.from_numpy(X),)), tmp_path / "m.pt2")
    error = await refusal(start(tmp_path))
    expected = "the torch.export model can't be converted to OpenVINO; the log says why"
    assert error.message == expected


async def test_a_conversion_that_does_not_end_is_given_up(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "LIMIT_S", 0.01)
    torch.export.save(torch.export.export(Mlp(), (torch.from_numpy(X),)), tmp_path / "m.pt2")
    error = await refusal(start(tmp_path))
    assert error.message == "converting the torch.export model to OpenVINO took over 0 s"
