"""`python -m rayserve_platform.runtimes.openvino.to_ir`: the process that converts a model.

What to convert comes as JSON on standard input from the process that started it.
"""

import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov
import torch

from rayserve_platform.formats.graph import Format
from rayserve_platform.formats.sentence_transformers import Normalize, read_bi_encoder
from rayserve_platform.runtimes.openvino.tensors import ELEMENTS

EMBEDDING = "sentence_embedding"
"""Output beside `last_hidden_state` where the pooling is a mean, as sentence-transformers' usual
one: float32 [texts, width]."""


def convert(order: Mapping[str, Any]) -> None:
    """Write what the order names as IR, in float32."""
    path = Path(order["path"])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracers warn of what they can't know to be constant
        match Format(order["format"]):
            case Format.TORCH_EXPORT:
                model = _exported(path)
            case Format.TORCHSCRIPT:
                model = _script(path, order["inputs"])
            case _:
                model = _transformers(path)
    ov.save_model(model, order["out"], compress_to_fp16=False)


def _exported(path: Path) -> Any:
    """Convert an exported program; OpenVINO forgets which axes were fixed, so they are set anew."""
    program = torch.export.load(path)
    model = ov.convert_model(program)
    nodes = {node.name: node for node in program.graph.nodes}
    shapes = {}
    for port, name in zip(model.inputs, program.graph_signature.user_inputs, strict=True):
        sizes = nodes[name].meta["val"].shape
        shapes[port] = ov.PartialShape([d if isinstance(d, int) else -1 for d in sizes])
        port.get_tensor().set_names({name})
    model.reshape(shapes)
    for port, name in zip(model.outputs, program.graph_signature.user_outputs, strict=True):
        port.get_tensor().set_names({name})
    return model


def _script(path: Path, inputs: Mapping[str, Any]) -> Any:
    module = torch.jit.load(path, map_location="cpu").eval()
    given = [
        (ov.PartialShape(list(_dims(spec["shape"]))), ELEMENTS[spec["datatype"]])
        for spec in inputs.values()
    ]
    model = ov.convert_model(module, input=given)
    for port, name in zip(model.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
    return model


def _dims(shape: list[int | str]) -> list[Any]:
    return [
        ov.Dimension(d) if isinstance(d, int) else ov.Dimension(*map(int, d.split(":")))
        for d in shape
    ]


def _transformers(path: Path) -> Any:
    """Convert an encoder: token ids and mask in, hidden states out, and embeddings if it has any.

    No code of the model's own runs, and no pickle is read.
    """
    from transformers import AutoModel

    encoder = read_bi_encoder(path)
    module = AutoModel.from_pretrained(
        encoder.transformer, local_files_only=True, trust_remote_code=False, use_safetensors=True
    ).eval()
    # Two rows of different lengths, so that nothing is traced as if there were no padding.
    ids = torch.ones((2, 7), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    example = {"input_ids": ids, "attention_mask": mask}
    free = ov.PartialShape([-1, -1])
    pooled = encoder.pooling == ("mean",) and all(isinstance(s, Normalize) for s in encoder.head)
    traced = _Encoder(module, pooled=pooled, normalized=bool(encoder.head))
    inputs = [(name, free, ov.Type.i64) for name in example]
    model = ov.convert_model(traced, example_input=example, input=inputs)
    for port, name in zip(model.outputs, ("last_hidden_state", EMBEDDING), strict=False):
        port.get_tensor().set_names({name})
    return model


class _Encoder(torch.nn.Module):  # type: ignore[misc]  # torch is Any here
    """A transformer's hidden states, and their mean over each text's tokens."""

    def __init__(self, transformer: Any, *, pooled: bool, normalized: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooled = pooled
        self.normalized = normalized

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        hidden = output.last_hidden_state
        if not self.pooled:
            return (hidden,)
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        if self.normalized:
            mean = torch.nn.functional.normalize(mean, p=2.0, dim=1)
        return hidden, mean


def main() -> None:
    """Convert what standard input says."""
    convert(json.load(sys.stdin))


if __name__ == "__main__":
    main()
