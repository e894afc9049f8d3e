"""Tiny models of several architectures, held against transformers' own computation.

The expectation is computed text by text, without padding, and pooled by hand.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from rayserve_platform.formats.sentence_transformers import (
    Encoder,
    read_bi_encoder,
    read_cross_encoder,
)
from rayserve_platform.runtimes.embedding.backend import Backend
from rayserve_platform.runtimes.embedding.batch import Row
from rayserve_platform.runtimes.embedding.openvino_backend import OpenVINOBackend
from rayserve_platform.runtimes.embedding.texts import Texts
from rayserve_platform.runtimes.embedding.to_openvino import convert
from rayserve_platform.runtimes.embedding.torch_backend import TorchBackend
from tests.unit.runtimes.embedding import tiny

TEXTS = ("first sentence", "another test", "a", "The quick fox", "un 12!?", "unable the")
PAIRS = [(query, text) for query in ("the fox", "a test of it") for text in TEXTS]
TOLERANCE = 5e-6

MakeBackend = Callable[..., Backend]


@pytest.fixture(params=["openvino", "torch"])
def make_backend(request: pytest.FixtureRequest, tmp_path: Path) -> MakeBackend:
    """Makes a backend of a model."""

    def make(encoder: Encoder, *, segments: bool = False) -> Backend:
        if request.param == "torch":
            return TorchBackend(
                encoder, device="cpu", precision="float32", threads=2, segments=segments
            )
        convert(encoder, tmp_path, "float32", segments=segments)
        return OpenVINOBackend(tmp_path / "model.xml", precision="float32", threads=2)

    return make


def run(backend: Backend, rows: list[Row], pad_id: int, *, alone: bool = True) -> np.ndarray:
    width = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask, segments = np.zeros_like(ids), np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = row.ids
        mask[index, : len(row.ids)] = 1
        segments[index, : len(row.segments)] = row.segments
    return backend.run(ids, mask, segments, alone=alone)


def hidden_states(folder: Path, max_tokens: int) -> list[np.ndarray]:
    """What transformers computes for each text by itself: [tokens, width]."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    found = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_tokens)
        given.pop("token_type_ids", None)
        with torch.no_grad():
            found.append(model(**given).last_hidden_state[0].numpy())
    return found


POOLING: dict[str, Callable[[np.ndarray], Any]] = {
    "pooling_mode_cls_token": lambda h: h[0],
    "pooling_mode_max_tokens": lambda h: h.max(0),
    "pooling_mode_mean_tokens": lambda h: h.mean(0),
    "pooling_mode_mean_sqrt_len_tokens": lambda h: h.sum(0) / np.sqrt(len(h)),
    "pooling_mode_weightedmean_tokens": lambda h: np.average(
        h, axis=0, weights=np.arange(1, len(h) + 1)
    ),
    "pooling_mode_lasttoken": lambda h: h[-1],
}


@pytest.mark.parametrize("make_model", [tiny.bert, tiny.mpnet, tiny.roberta])
def test_plain_transformer_gets_mean_pooling(
    make_model: Callable[[Path], Path], make_backend: MakeBackend, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "model")
    encoder = read_bi_encoder(folder)
    texts = Texts(folder, max_tokens=encoder.max_tokens)
    found = run(make_backend(encoder), texts.rows(TEXTS, "inputs", None), texts.pad_id)
    expected = [hidden.mean(0) for hidden in hidden_states(folder, encoder.max_tokens)]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_all_poolings_are_joined_in_the_library_s_order(
    make_backend: MakeBackend, tmp_path: Path
) -> None:
    folder = tiny.chain(tiny.bert(tmp_path / "model"), "Pooling", pooling=" ".join(POOLING))
    encoder = read_bi_encoder(folder)
    texts = Texts(folder, max_tokens=encoder.max_tokens)
    backend = make_backend(encoder)
    rows = texts.rows(TEXTS, "inputs", None)
    states = hidden_states(folder, encoder.max_tokens)
    expected = [np.concatenate([pool(hidden) for pool in POOLING.values()]) for hidden in states]
    for alone in (True, False):
        found = run(backend, rows, texts.pad_id, alone=alone)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_dense_and_normalize_follow_the_pooling(make_backend: MakeBackend, tmp_path: Path) -> None:
    folder = tiny.chain(
        tiny.mpnet(tmp_path / "model"),
        "Pooling",
        "Dense",
        "Normalize",
        pooling="pooling_mode_cls_token",
    )
    encoder = read_bi_encoder(folder)
    texts = Texts(folder, max_tokens=encoder.max_tokens)
    found = run(make_backend(encoder), texts.rows(TEXTS, "inputs", None), texts.pad_id)
    torch.manual_seed(6)
    linear = torch.nn.Linear(32, 16)
    pooled = torch.tensor(np.stack([h[0] for h in hidden_states(folder, encoder.max_tokens)]))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(torch.tanh(linear(pooled)))
    np.testing.assert_allclose(found, expected.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("make_model", [tiny.bert_cross, tiny.roberta_cross])
def test_cross_encoder_scores_are_the_classifier_s(
    make_model: Callable[[Path], Path],
    segments: bool,
    make_backend: MakeBackend,
    tmp_path: Path,
) -> None:
    folder = make_model(tmp_path / "model")
    encoder = read_cross_encoder(folder)
    segments = segments and encoder.has_segments
    texts = Texts(folder, max_tokens=encoder.max_tokens, segments=segments)
    rows = texts.pairs(["the fox", "a test of it"], TEXTS, None)
    found = run(make_backend(encoder, segments=segments), rows, texts.pad_id)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for pair in PAIRS:
        given = tokenizer(*pair, return_tensors="pt", return_token_type_ids=segments)
        with torch.no_grad():
            expected.append(torch.sigmoid(model(**given).logits)[0, 0].item())
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_segments_change_the_scores_of_a_model_that_has_them(tmp_path: Path) -> None:
    encoder = read_cross_encoder(tiny.bert_cross(tmp_path / "model"))
    scores = []
    for segments in (False, True):
        texts = Texts(encoder.transformer, max_tokens=encoder.max_tokens, segments=segments)
        backend = TorchBackend(
            encoder, device="cpu", precision="float32", threads=1, segments=segments
        )
        scores.append(run(backend, texts.pairs(["the fox"], TEXTS, None), texts.pad_id))
    assert np.abs(scores[0] - scores[1]).max() > 0.01


def test_int8_stays_near_float32(tmp_path: Path) -> None:
    encoder = read_bi_encoder(tiny.bert(tmp_path / "model"))
    texts = Texts(encoder.transformer, max_tokens=encoder.max_tokens)
    rows = texts.rows(TEXTS, "inputs", None)
    found = []
    for precision in ("float32", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        convert(encoder, folder, precision, segments=False)
        backend = OpenVINOBackend(folder / "model.xml", precision=precision, threads=1)
        found.append(run(backend, rows, texts.pad_id))
    weights = [(tmp_path / name / "model.bin").stat().st_size for name in ("float32", "int8")]
    assert weights[1] < 0.8 * weights[0]
    for one, other in zip(*found, strict=True):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert 0.95 < cosine < 0.999999
