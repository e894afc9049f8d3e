"""A pooling model on the real vLLM engine, held against transformers' own result."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.messages import Embed, Generate
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.settings.app import Ingress

pytestmark = [
    pytest.mark.llm,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

TEXTS = ["A man is eating food.", "The girl is carrying a baby.", "Paris"]


@pytest.fixture(scope="module")
def expected(minilm_dir: Path) -> Any:
    """Mean-pooled, normalized vectors, as the model's sentence-transformers modules say."""
    tokenizer = AutoTokenizer.from_pretrained(minilm_dir)
    model = AutoModel.from_pretrained(minilm_dir, dtype=torch.float32)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled).numpy()


def _close(vectors: Any, expected: Any) -> bool:
    cosines = (np.asarray(vectors) * expected).sum(axis=1)
    return bool(np.all(cosines > 0.9999))


async def test_vectors_equal_transformers(minilm: Any, expected: Any) -> None:
    found = await minilm.embed(Embed(model="minilm", inputs=tuple(TEXTS)))
    assert found.vectors.shape == (3, 384)
    assert found.vectors.dtype == np.float32
    assert _close(found.vectors, expected)
    with pytest.raises(PlatformError, match="generate"):
        minilm.generate(Generate(model="minilm", prompt="x"))


async def test_the_openai_routes_of_a_pooling_model(minilm: Any, expected: Any) -> None:
    app = HttpEdge([OpenAIHttp(Catalog([minilm]))], Ingress())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.post("/v1/embeddings", json={"input": TEXTS})
        assert answer.status_code == 200, answer.text
        assert _close([item["embedding"] for item in answer.json()["data"]], expected)
        ranked = await client.post("/v1/rerank", json={"query": TEXTS[0], "documents": TEXTS})
        assert ranked.status_code == 200, ranked.text
        assert ranked.json()["results"][0]["index"] == 0
        scored = await client.post("/v1/score", json={"text_1": TEXTS[0], "text_2": TEXTS[1:]})
        assert len(scored.json()["data"]) == 2
        pooled = await client.post("/pooling", json={"input": TEXTS[0]})
        assert pooled.status_code == 200, pooled.text
        refused = await client.post("/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 400
        assert "does not support completions" in refused.json()["error"]["message"]
