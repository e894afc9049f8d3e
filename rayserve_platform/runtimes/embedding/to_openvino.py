"""`python -m rayserve_platform.runtimes.embedding.to_openvino`: the process that converts a model.

What to convert comes pickled on standard input from the process that started it.
"""

import pickle
import sys
import warnings
from pathlib import Path

import openvino as ov
import torch
from torch import Tensor, nn

from rayserve_platform.formats.sentence_transformers import Encoder
from rayserve_platform.runtimes.embedding.module import build


def convert(encoder: Encoder, directory: Path, precision: str, *, segments: bool) -> None:
    """Trace a model and write its graph as `model.xml` and `model.bin`, in float32 or int8."""
    module = build(encoder)
    if precision == "int8":
        _quantize(module)
    # Two rows of different lengths, so that nothing is traced as if there were no padding.
    ids = torch.ones((2, 7), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    example = {"input_ids": ids, "attention_mask": mask}
    if segments:
        example["token_type_ids"] = torch.zeros_like(ids)
    shape = ov.PartialShape([-1, -1])
    with warnings.catch_warnings(), torch.no_grad():
        # transformers asks tensors for sizes as it is traced; they stay dynamic all the same.
        warnings.simplefilter("ignore")
        inputs = [(name, shape, ov.Type.i64) for name in example]
        model = ov.convert_model(module, example_input=example, input=inputs)
    ov.save_model(model, directory / "model.xml", compress_to_fp16=False)


class _Int8Linear(nn.Module):  # type: ignore[misc]  # torch is Any here
    """A linear layer with int8 weights and a scale for each of its outputs.

    OpenVINO recognises the pattern and multiplies in int8, quantizing the inputs as they come.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("weight", torch.round(linear.weight / scale).to(torch.int8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype) * self.scale
        return nn.functional.linear(x, weight, self.bias)


def _quantize(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _Int8Linear(child))
        else:
            _quantize(child)


def main() -> None:
    """Convert what standard input says."""
    encoder, directory, precision, segments = pickle.load(sys.stdin.buffer)  # noqa: S301  # our own
    convert(encoder, directory, precision, segments=segments)


if __name__ == "__main__":
    main()
