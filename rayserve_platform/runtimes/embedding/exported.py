"""Models that came as OpenVINO IR: what sentence-transformers does behind the transformer is added.

optimum-intel exports a transformer with its hidden states as output, or, of a sentence-transformers
model, with the finished vectors.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from rayserve_platform.formats.sentence_transformers import Encoder, Normalize
from rayserve_platform.formats.weights import unusable

log = logging.getLogger("rayserve.embedding")

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
HIDDEN = ("last_hidden_state", "token_embeddings")
FINISHED = "sentence_embedding"


def read_graph(encoder: Encoder, file: Path) -> Any:
    """Return the graph from ids, mask and, where it has them, segments, to one vector a text.

    Raises:
        PlatformError: INVALID_ARGUMENT if it can't be read, or is of another kind.
    """
    try:
        model = ov.Core().read_model(file)
    except RuntimeError as error:
        log.exception("%s can't be read", file.name)
        raise unusable(f"{file.name} can't be read; the log says why") from error
    inputs = {name: port for port in model.inputs for name in port.get_names()}
    outputs = {name: port for port in model.outputs for name in port.get_names()}
    if len(model.inputs) > len(INPUTS) or not {*INPUTS[:2]} <= inputs.keys() <= {*INPUTS}:
        raise unusable(
            f"{file.name}: inputs are {', '.join(sorted(inputs))}; expected are "
            f"{', '.join(INPUTS[:2])} and perhaps {INPUTS[2]}"
        )
    given = [inputs[name].get_node() for name in INPUTS if name in inputs]
    if FINISHED in outputs:
        vectors = _source(outputs[FINISHED])
    else:
        hidden = next((outputs[name] for name in HIDDEN if name in outputs), None)
        if hidden is None:
            raise unusable(f"{file.name} has no output '{HIDDEN[0]}' or '{FINISHED}'")
        vectors = _vectors(encoder, _source(hidden), inputs["attention_mask"])
    return ov.Model([op.result(vectors)], given, "encoder")


def _source(port: Any) -> Any:
    return port.get_node().input_value(0)


def _vectors(encoder: Encoder, hidden: Any, mask: Any) -> Any:
    """Pool hidden states [texts, tokens, width] as sentence-transformers does."""
    hidden = op.convert(hidden, ov.Type.f32)
    tokens, width = op.constant(np.array([1])), op.constant(np.array([-1]))
    match encoder.pooling:
        case ("mean",):
            there = op.convert(op.unsqueeze(mask, width), ov.Type.f32)
            total = op.reduce_sum(op.multiply(hidden, there), tokens, keep_dims=False)
            count = op.reduce_sum(there, tokens, keep_dims=False)
            vectors = op.divide(total, op.maximum(count, op.constant(np.float32(1e-9))))
        case ("cls",):
            vectors = op.gather(hidden, op.constant(np.array(0)), op.constant(np.array(1)))
        case modes:
            raise unusable(
                f"pooling '{' and '.join(modes)}' is not added to a model in OpenVINO IR; export "
                "it with its pooling, or serve its safetensors"
            )
    for step in encoder.head:
        if not isinstance(step, Normalize):
            raise unusable("a Dense module is not added to a model in OpenVINO IR")
        # The smallest length, squared: torch.nn.functional.normalize has 1e-12.
        vectors = op.normalize_l2(vectors, width, 1e-24, "max")
    return vectors
