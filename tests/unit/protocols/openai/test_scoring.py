"""Scores and rankings: shapes are vLLM's own models, numbers those of the texts' vectors."""

import numpy as np
import pytest
from vllm.entrypoints.pooling.scoring.protocol import RerankResponse, ScoreResponse

from rayserve_platform.core.messages import Embed

DOCUMENTS = ["a dog", "a cat", "the moon", "a puppy"]


async def similarities(runtime, queries, documents):
    async def vectors(texts):
        return (await runtime.embed(Embed(model="fake", inputs=tuple(texts)))).vectors

    return await vectors(queries) @ (await vectors(documents)).T


async def test_documents_come_in_the_order_of_their_scores(serve_http):
    server = await serve_http()
    (expected,) = await similarities(server.runtime, ["dog"], DOCUMENTS)
    response = await server.client.post(
        "/v1/rerank", json={"query": "dog", "documents": DOCUMENTS, "top_n": 3}
    )
    found = RerankResponse.model_validate(response.json())
    assert [r.index for r in found.results] == list(np.argsort(-expected))[:3]
    for result in found.results:
        assert result.document.text == DOCUMENTS[result.index]
        assert result.relevance_score == pytest.approx(expected[result.index], abs=1e-6)
    assert found.usage.total_tokens == len("dog") + sum(map(len, DOCUMENTS))


@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank"])
async def test_every_path_of_reranking_ranks_all_without_top_n(serve_http, path):
    server = await serve_http()
    response = await server.client.post(path, json={"query": "dog", "documents": DOCUMENTS})
    assert len(RerankResponse.model_validate(response.json()).results) == len(DOCUMENTS)


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items")]
)
@pytest.mark.parametrize("queries", ["dog", ["dog"], ["dog", "cat", "sun", "pup"]])
async def test_one_text_is_scored_with_each_and_lists_pair_by_pair(serve_http, names, queries):
    server = await serve_http()
    listed = [queries] if isinstance(queries, str) else queries
    matrix = await similarities(server.runtime, listed, DOCUMENTS)
    expected = matrix[0] if len(listed) == 1 else matrix.diagonal()
    response = await server.client.post("/score", json=dict(zip(names, (queries, DOCUMENTS))))  # noqa: B905
    found = ScoreResponse.model_validate(response.json())
    assert [each.score for each in found.data] == pytest.approx(expected.tolist(), abs=1e-6)
    assert [each.index for each in found.data] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        (
            "/v1/score",
            {"text_1": ["a", "b"], "text_2": ["c"]},
            ("text_1", "as many as 'text_2' (1)"),
        ),
        ("/v1/score", {"text_1": "a"}, ("text_1", "are required")),
        ("/v1/score", {"text_1": "a", "text_2": []}, ("text_2", "at least one text")),
        ("/v1/rerank", {"query": "a", "documents": []}, ("documents", "at least one text")),
        ("/v1/rerank", {"query": "x" * 11, "documents": ["a"]}, ("query", "'query' at index 0")),
        ("/v1/rerank", {"query": "x", "documents": ["a", "b" * 11]}, ("documents", "at index 1")),
        (
            "/v1/score",
            {"text_1": ["a", "b"], "text_2": ["c", "d" * 11]},
            ("text_2", "'text_2' at index 1: longer than this model's maximum of 10 tokens"),
        ),
    ],
)
async def test_a_callers_mistake_is_named_as_the_body_names_it(
    serve_http, make_fake, path, body, fault
):
    param, message = fault
    server = await serve_http(make_fake(max_model_len=10))
    response = await server.client.post(path, json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], message in error["message"]) == (param, True)


async def test_a_long_document_can_be_truncated(serve_http, make_fake):
    server = await serve_http(make_fake(max_model_len=10))
    body = {"query": "x", "documents": ["b" * 11], "truncate_prompt_tokens": 10}
    response = await server.client.post("/v1/rerank", json=body)
    assert response.status_code == 200
    assert response.json()["usage"]["total_tokens"] == 11
