"""Models that came as OpenVINO IR give the vectors that transformers computes.

They are exported as optimum-intel does: the transformer alone, its inputs and outputs by name.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from transformers import AutoModel

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Embed
from rayserve_platform.formats.sentence_transformers import read_bi_encoder
from rayserve_platform.runtimes.embedding.engine import EmbeddingRuntime
from rayserve_platform.runtimes.embedding.exported import read_graph
from tests.unit.runtimes.embedding import tiny
from tests.unit.runtimes.embedding.conftest import settings
from tests.unit.runtimes.embedding.test_models import TEXTS, TOLERANCE, hidden_states

GRAPHS: dict[tuple[str, ...], Any] = {}
"""By the names of their inputs: tracing takes seconds, and the weights are the same each time."""

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def export(
    folder: Path, *names: str, output: str = "last_hidden_state", place: str = "openvino_model.xml"
) -> Path:
    """Write the transformer as IR in place of its safetensors."""
    if names not in GRAPHS:
        GRAPHS[names] = traced(folder, names)
    GRAPHS[names].outputs[0].get_tensor().set_names({output})
    (folder / place).parent.mkdir(exist_ok=True)
    ov.save_model(GRAPHS[names], folder / place, compress_to_fp16=False)
    (folder / "model.safetensors").unlink()
    return folder


def traced(folder: Path, names: tuple[str, ...]) -> Any:
    module = AutoModel.from_pretrained(folder).eval()
    example = {name: torch.ones((2, 7), dtype=torch.int64) for name in names}
    inputs = [(name, ov.PartialShape([-1, -1]), ov.Type.i64) for name in names]
    module.config.return_dict = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO traces, which torch calls deprecated
        model = ov.convert_model(module, example_input=example, input=inputs)
    return ov.Model([model.outputs[0].node], model.get_parameters(), "exported")


async def embedded(folder: Path, **engine: Any) -> np.ndarray:
    app = settings(models=[{"id": "m", "source": str(folder)}], embedding=engine)
    runtime = EmbeddingRuntime(app)
    await runtime.start()
    found = await runtime.embed(Embed(model="m", inputs=TEXTS))
    await runtime.stop()
    return found.vectors


@pytest.mark.parametrize(
    ("pooling", "names", "place"),
    [
        ("mean", NAMES, "openvino_model.xml"),
        ("cls", NAMES[:2], "openvino/openvino_model.xml"),
    ],
)
async def test_a_transformer_in_ir_gets_pooling_and_length(
    tmp_path: Path, pooling: str, names: tuple[str, ...], place: str
) -> None:
    mode = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[pooling]
    folder = tiny.chain(tiny.bert(tmp_path / "m"), "Pooling", "Normalize", pooling=mode)
    states = hidden_states(folder, read_bi_encoder(folder).max_tokens)
    found = await embedded(export(folder, *names, place=place))
    pooled = np.stack([h.mean(0) if pooling == "mean" else h[0] for h in states])
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


async def test_finished_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = export(tiny.bert(tmp_path / "m"), *NAMES[:2], output="sentence_embedding")
    graph = read_graph(read_bi_encoder(folder), folder / "openvino_model.xml")
    assert [port.any_name for port in graph.inputs] == list(NAMES[:2])
    assert graph.outputs[0].get_partial_shape().rank.get_length() == 3  # no pooling was added


async def refusal(folder: Path, **engine: Any) -> str:
    with pytest.raises(PlatformError) as caught:
        await embedded(folder, **engine)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(folder) not in caught.value.message
    return caught.value.message


async def test_what_is_not_added_to_a_graph_is_refused_by_name(tmp_path: Path) -> None:
    most = tiny.chain(tiny.bert(tmp_path / "a"), "Pooling", pooling="pooling_mode_max_tokens")
    assert "pooling 'max'" in await refusal(export(most, *NAMES[:2]))
    dense = tiny.chain(tiny.bert(tmp_path / "b"), "Pooling", "Dense")
    assert "Dense" in await refusal(export(dense, *NAMES[:2]))
    plain = export(tiny.bert(tmp_path / "c"), *NAMES[:2])
    assert "embedding.backend" in await refusal(plain, backend="torch")
    other = export(tiny.bert(tmp_path / "d"), *NAMES[:2], output="logits")
    assert "no output 'last_hidden_state'" in await refusal(other)
    (plain / "openvino_model.xml").write_bytes(b"<net")
    assert "can't be read; the log says why" in await refusal(plain)
