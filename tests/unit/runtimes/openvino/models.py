"""Small models, made where a test needs them: IR by OpenVINO's own operations, ONNX by onnx."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import torch
from openvino import opset13 as op

SCALE = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)


def ir(
    path: Path,
    build: Callable[..., Any],
    *inputs: tuple[str, Sequence[int], Any],
    output: str = "y",
) -> Path:
    """Write `path/model.xml`: `build` makes an output (or a list) of the named inputs."""
    given = []
    for name, shape, element in inputs:
        parameter = op.parameter(ov.PartialShape(list(shape)), element, name=name)
        parameter.output(0).set_names({name})
        given.append(parameter)
    made = build(*given)
    nodes = made if isinstance(made, list) else [made]
    for index, node in enumerate(nodes):
        node.output(0).set_names({output if len(nodes) == 1 else f"{output}{index}"})
    path.mkdir(parents=True, exist_ok=True)
    model = ov.Model([op.result(node) for node in nodes], given, "model")
    ov.save_model(model, path / "model.xml", compress_to_fp16=False)
    return path


def times(path: Path, factor: float = 1.0, shape: Sequence[int] = (-1, 4)) -> Path:
    """A model y = x · [1, 2, 3, 4] · factor."""
    scale = op.constant(SCALE * np.float32(factor))
    return ir(path, lambda x: op.multiply(x, scale), ("x", shape, ov.Type.f32))


def sums(path: Path) -> Path:
    """A model y = a + b, where both have two free axes."""
    free = (-1, -1)
    return ir(path, op.add, ("a", free, ov.Type.f32), ("b", free, ov.Type.f32))


def reshape(path: Path) -> Path:
    """A model that gives its four numbers x the shape of two axes that a request asks for."""
    inputs = ("x", (4,), ov.Type.f32), ("shape", (2,), ov.Type.i64)
    return ir(path, lambda x, shape: op.reshape(x, shape, False), *inputs)


def stateful(path: Path) -> Path:
    """A model that adds up what it is given."""
    x = op.parameter([1, 2], ov.Type.f32, name="x")
    x.output(0).set_names({"x"})
    from openvino.op.util import Variable, VariableInfo

    info = VariableInfo()
    info.data_shape, info.data_type, info.variable_id = ov.PartialShape([1, 2]), ov.Type.f32, "v"
    variable = Variable(info)
    total = op.add(op.read_value(op.constant(np.zeros((1, 2), np.float32)), variable), x)
    path.mkdir(parents=True, exist_ok=True)
    model = ov.Model([op.result(total)], [op.assign(total, variable)], [x], "model")
    ov.save_model(model, path / "model.xml", compress_to_fp16=False)
    return path


def mlp_onnx(path: Path) -> Any:
    """Write softmax(tanh(x·A + a)·B) as ONNX; returns the model."""
    generator = np.random.default_rng(5)
    weights = {
        "A": generator.normal(size=(4, 8)),
        "a": generator.normal(size=8),
        "B": generator.normal(size=(8, 3)),
    }
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "A"], ["h0"]),
        onnx.helper.make_node("Add", ["h0", "a"], ["h1"]),
        onnx.helper.make_node("Tanh", ["h1"], ["h2"]),
        onnx.helper.make_node("MatMul", ["h2", "B"], ["h3"]),
        onnx.helper.make_node("Softmax", ["h3"], ["probabilities"], axis=-1),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "mlp",
        [onnx.helper.make_tensor_value_info("x", kind, ["batch", 4])],
        [onnx.helper.make_tensor_value_info("probabilities", kind, ["batch", 3])],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return model


class Mlp(torch.nn.Module):  # type: ignore[misc]  # torch is Any here
    """The same in torch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.one = torch.nn.Linear(4, 8)
        self.two = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.two(torch.tanh(self.one(x))), -1)
