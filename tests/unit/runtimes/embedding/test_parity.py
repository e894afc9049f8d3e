"""Vectors, scores and token counts are those that the real Caikit gave for the same texts."""

import numpy as np
import pytest

from rayserve_platform.core.errors import InputTooLong
from rayserve_platform.core.messages import Embed
from rayserve_platform.core.scores import Score
from rayserve_platform.runtimes.embedding.engine import EmbeddingRuntime
from tests.unit.runtimes.embedding.conftest import (
    cosine,
    decoded,
    kept_tokens,
    parity,
    recorded,
)

CLOSE = 0.9999
SAME_SCORE = 2e-6


async def test_single_texts_have_the_recorded_vectors(minilm: EmbeddingRuntime) -> None:
    cases = parity()["single"]
    assert len(cases) == 72
    for case in cases:
        kept = kept_tokens(case["parameters"])
        found = await minilm.embed(Embed(model="m", inputs=(case["text"],), truncate_tokens=kept))
        assert cosine(found.vectors[0], decoded(case["vector"])) >= CLOSE, case["text"]
        assert found.token_counts == (case["input_token_count"],), case["text"]


async def test_a_batch_has_the_recorded_vectors(minilm: EmbeddingRuntime) -> None:
    batch = parity()["batch"]
    found = await minilm.embed(Embed(model="m", inputs=tuple(batch["texts"])))
    assert found.vectors.dtype == np.float32
    assert len(found.vectors) == len(batch["vectors"]) == 30
    for ours, theirs in zip(found.vectors, batch["vectors"], strict=True):
        assert cosine(ours, decoded(theirs)) >= CLOSE
    assert sum(found.token_counts) == batch["input_token_count"]


@pytest.mark.parametrize(("request_", "answer"), recorded("embedding"))
async def test_embedding_is_as_recorded(minilm: EmbeddingRuntime, request_, answer) -> None:
    kept = kept_tokens(request_.get("parameters"))
    found = await minilm.embed(Embed(model="m", inputs=(request_["inputs"],), truncate_tokens=kept))
    assert cosine(found.vectors[0], answer["result"]["data"]["values"]) >= CLOSE
    assert found.token_counts == (answer["input_token_count"],)


@pytest.mark.parametrize(("request_", "answer"), recorded("embedding-tasks"))
async def test_embedding_tasks_are_as_recorded(minilm: EmbeddingRuntime, request_, answer) -> None:
    kept = kept_tokens(request_.get("parameters"))
    texts = tuple(request_["inputs"])
    found = await minilm.embed(Embed(model="m", inputs=texts, truncate_tokens=kept))
    vectors = answer["results"]["vectors"]
    for ours, theirs in zip(found.vectors, vectors, strict=True):
        assert cosine(ours, theirs["data"]["values"]) >= CLOSE
    assert sum(found.token_counts) == answer["input_token_count"]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [*recorded("sentence-similarity"), *recorded("sentence-similarity-tasks")],
)
async def test_similarities_are_as_recorded(minilm: EmbeddingRuntime, request_, answer) -> None:
    inputs = request_["inputs"]
    sources = inputs.get("source_sentences") or [inputs["source_sentence"]]
    found = await minilm.score(
        Score(
            model="m",
            queries=tuple(sources),
            documents=tuple(inputs["sentences"]),
            truncate_tokens=kept_tokens(request_.get("parameters")),
        )
    )
    results = answer.get("results") or [answer["result"]]
    expected = [result["scores"] for result in results]
    np.testing.assert_allclose(found.scores, expected, atol=SAME_SCORE)
    assert found.token_count == answer["input_token_count"]


@pytest.mark.parametrize(("request_", "answer"), [*recorded("rerank"), *recorded("rerank-tasks")])
async def test_rerank_scores_are_as_recorded(minilm: EmbeddingRuntime, request_, answer) -> None:
    inputs = request_["inputs"]
    queries = inputs["queries"] if "queries" in inputs else [inputs["query"]]
    texts = [
        document.get("text") or document.get("_text") or "" for document in inputs["documents"]
    ]
    found = await minilm.score(
        Score(
            model="m",
            queries=tuple(queries),
            documents=tuple(texts),
            truncate_tokens=kept_tokens(request_.get("parameters")),
        )
    )
    for query, result in enumerate(answer.get("results") or [answer["result"]]):
        for score in result["scores"]:
            assert found.scores[query, score["index"]] == pytest.approx(
                score["score"], abs=SAME_SCORE
            )
    assert found.token_count == answer["input_token_count"]


async def test_texts_that_are_too_long_are_named_as_caikit_names_them(
    minilm: EmbeddingRuntime,
) -> None:
    # Recorded as embedding-tasks/two_too_long: "for text at indexes: 3, 1."
    texts = ("short", "word " * 300, "short", "word " * 400)
    with pytest.raises(InputTooLong) as caught:
        await minilm.embed(Embed(model="m", inputs=texts))
    assert caught.value.indexes == (3, 1)
    assert (caught.value.field, caught.value.limit) == ("inputs", 256)
