"""The models of the v2 part, as OpenVINO IR: every server serves the same files.

`python -m rayserve_platform.bench.openvino_models --embedder DIR --out DIR` writes `mlp/model.xml`
and `minilm/model.xml`, in float32, and what they answer to the first row of `inference.rows`
(`answers.json`: numbers by model). What is cut short leaves no folder behind.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rayserve_platform.bench.inference import ANSWERS, FEATURES, NAMES, Row, rows

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}
_HIDDEN, _CLASSES = 32, 4


def mlp() -> Any:
    """Return two dense layers with fixed random weights: x [rows, 16] to y [rows, 4]."""
    import openvino
    from openvino import opset13 as ops

    source = np.random.default_rng(7)

    def dense(inputs: Any, width: int, out: int) -> Any:
        weights = ops.constant(source.normal(0, 0.3, (width, out)).astype(np.float32))
        bias = ops.constant(source.normal(0, 0.3, out).astype(np.float32))
        return ops.add(ops.matmul(inputs, weights, transpose_a=False, transpose_b=False), bias)

    x = ops.parameter(openvino.PartialShape([-1, FEATURES]), np.float32, name="x")
    y = dense(ops.relu(dense(x, FEATURES, _HIDDEN)), _HIDDEN, _CLASSES)
    return _named(openvino.Model([y], [x], "mlp"), ("x",), "y")


def minilm(folder: Path) -> Any:
    """Return a sentence-transformers model: token ids and mask [rows, tokens] to unit vectors."""
    import openvino
    from openvino import opset13 as ops
    from transformers import AutoModel, AutoTokenizer

    # Two lengths, so that the conversion fixes none.
    text = AutoTokenizer.from_pretrained(folder)(
        ["one", "two words"], padding=True, return_tensors="pt"
    )
    names = ("input_ids", "attention_mask")
    model = openvino.convert_model(
        AutoModel.from_pretrained(folder).eval(),
        example_input={name: text[name] for name in names},
    )
    _, mask = inputs = model.get_parameters()
    hidden = model.outputs[0].get_node().input_value(0)
    shares = ops.convert(ops.unsqueeze(mask, ops.constant(-1)), "f32")
    axis = ops.constant([1])
    mean = ops.divide(
        ops.reduce_sum(ops.multiply(hidden, shares), axis), ops.reduce_sum(shares, axis)
    )
    unit = ops.normalize_l2(mean, axis, 1e-12, "max")
    return _named(openvino.Model([unit], inputs, "minilm"), names, "embedding")


def _named(model: Any, inputs: tuple[str, ...], output: str) -> Any:
    for port, name in zip((*model.inputs, *model.outputs), (*inputs, output), strict=True):
        port.get_tensor().set_names({name})
    return model


def arrays(given: tuple[Row, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Return rows as what OpenVINO takes: an array with a row for each, by input."""
    kinds = {name: np.int64 if isinstance(row[0], int) else np.float32 for name, row in
             given[0].items()}  # fmt: skip
    return {name: np.array([row[name] for row in given], kind) for name, kind in kinds.items()}


def write(embedder: Path, out: Path) -> None:
    """Make both models and their answers."""
    import openvino

    unfinished = out.with_name(f"{out.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    answers = {}
    for name in NAMES:
        model = mlp() if name == "mlp" else minilm(embedder)
        openvino.save_model(model, unfinished / name / "model.xml", compress_to_fp16=False)
        answer = openvino.compile_model(model, "CPU", FLOAT32)(arrays(rows(name, 1)))[0]
        answers[name] = answer.ravel().tolist()
    (unfinished / ANSWERS).write_text(json.dumps(answers) + "\n", encoding="utf-8")
    unfinished.replace(out)


def main() -> None:
    """Make the models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--embedder", required=True, type=Path, help="sentence-transformers directory"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    arguments = parser.parse_args()
    write(arguments.embedder, arguments.out)


if __name__ == "__main__":
    main()
