"""The real embedding model as `make run CONFIG=caikit-standalone` serves it.

Expectations are the answers recorded from the real Caikit (tests/data/caikit/ORIGIN.md).
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

README_SECTION = "Caikit"
RECORDED = Path(__file__).parents[2] / "data/caikit/standalone_http"
MODEL = "all-minilm-l6-v2-caikit"


def _recorded(file: str, case: str) -> dict[str, Any]:
    cases = json.loads((RECORDED / f"{file}.json").read_text())["cases"]
    [found] = [c for c in cases if c["id"] == f"{file}/{case}"]
    answer: dict[str, Any] = json.loads(found["response"]["body"])
    return answer


def _alike(found: list[float], expected: list[float]) -> bool:
    a, b = np.array(found), np.array(expected)
    return bool(a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.9999)


def test_a_line_of_the_readme_works(standalone: Any, readme_line: str) -> None:
    answer = json.loads(standalone.run_line(readme_line))
    embedding = _recorded("embedding", "minimal")
    vector = embedding["result"]["data"]["values"]
    if "task/embedding" in readme_line:
        assert _alike(answer["result"]["data"]["values"], vector)
        assert answer["input_token_count"] == embedding["input_token_count"]
        assert answer["producer_id"] == embedding["producer_id"]
    elif "EmbeddingTaskPredict" in readme_line:
        assert _alike(answer["result"]["data_npfloat32sequence"]["values"], vector)
    elif "/v1/embeddings" in readme_line:
        assert _alike(answer["data"][0]["embedding"], vector)
    elif "sentence-similarity" in readme_line:
        expected = _recorded("sentence-similarity", "minimal")["result"]["scores"]
        assert answer["result"]["scores"] == pytest.approx(expected, abs=1e-4)
    elif "rerank" in readme_line:
        scores = _recorded("rerank", "twelve_docs_default_top_n")["result"]["scores"]
        [found] = answer["result"]["scores"]
        assert (found["text"], found["index"]) == ("topic 3", 1)
        assert found["score"] == pytest.approx(scores[0]["score"], abs=1e-4)
    else:
        assert [model["name"] for model in answer["models"]] == [MODEL]


def test_the_printed_curl_works(standalone: Any) -> None:
    [line] = [line for line in standalone.output.split("\n\n") if line.startswith("  curl")]
    answer = json.loads(standalone.run_line(line.strip()))
    assert len(answer["result"]["data"]["values"]) == 384


async def test_a_redeploy_under_traffic_loses_no_request(standalone: Any) -> None:
    url = f"{standalone.url}/api/v1/task/embedding"
    expected = _recorded("embedding", "minimal")["result"]["data"]["values"]
    failures: list[str] = []
    served = 0
    stop = asyncio.Event()

    async def traffic(client: httpx.AsyncClient) -> None:
        nonlocal served
        while not stop.is_set():
            body = {"model_id": MODEL, "inputs": "first sentence"}
            try:
                answer = await client.post(url, json=body)
            except httpx.HTTPError as error:
                failures.append(repr(error))
                continue
            if answer.status_code != 200:
                failures.append(f"{answer.status_code} {answer.text[:300]}")
            elif not _alike(answer.json()["result"]["data"]["values"], expected):
                failures.append("another vector")
            served += 1

    def change(content: dict[str, Any]) -> None:
        content["applications"][0]["args"]["models"][0]["aliases"] = ["second"]

    async with httpx.AsyncClient(timeout=240) as client:
        tasks = [asyncio.create_task(traffic(client)) for _ in range(4)]
        await asyncio.sleep(1)
        await asyncio.to_thread(standalone.deploy, change)
        deadline = time.monotonic() + 240
        while "second" not in (await client.get(f"{standalone.url}/v1/models")).text:
            assert time.monotonic() < deadline, "the new version does not serve"
            await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*tasks)
    assert failures == []
    assert served > 20


def test_ctrl_c_stops_everything_cleanly(standalone: Any) -> None:
    assert standalone.stop() == 0
    assert standalone.output.rstrip().endswith("Stopped.")
