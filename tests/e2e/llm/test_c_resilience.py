"""What a running LLM survives. The last tests of the package: they replace its replicas."""

import asyncio
import os
import signal
import time
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.llm, pytest.mark.timeout(600)]

BODY = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
HEAL_DEADLINE_S = 300


def _engine_pids(platform: Any) -> list[int]:
    return [pid for pid, name in platform.processes().items() if "EngineCore" in name]


async def test_a_redeploy_under_traffic_loses_no_request(quickstart: Any) -> None:
    url = f"{quickstart.url}/v1/completions"
    before = _engine_pids(quickstart)
    failures: list[str] = []
    texts: set[str] = set()
    stop = asyncio.Event()

    async def traffic(client: httpx.AsyncClient, *, stream: bool) -> None:
        while not stop.is_set():
            try:
                answer = await client.post(url, json={**BODY, "stream": stream})
            except httpx.HTTPError as error:
                failures.append(repr(error))
                continue
            if answer.status_code != 200 or (stream and "[DONE]" not in answer.text):
                failures.append(f"{answer.status_code} {answer.text[-300:]}")
            elif not stream:
                texts.add(answer.json()["choices"][0]["text"])

    def change(content: dict[str, Any]) -> None:
        content["applications"][0]["args"]["model"]["aliases"] = ["second"]

    async with httpx.AsyncClient(timeout=HEAL_DEADLINE_S) as client:
        tasks = [asyncio.create_task(traffic(client, stream=i % 2 == 0)) for i in range(4)]
        await asyncio.sleep(2)
        await asyncio.to_thread(quickstart.deploy, change)
        deadline = time.monotonic() + HEAL_DEADLINE_S
        models = f"{quickstart.url}/v1/models"
        while "second" not in (await client.get(models)).text:
            assert time.monotonic() < deadline, "the new version does not serve"
            await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*tasks)
    assert failures == []
    assert len(texts) == 1
    assert set(_engine_pids(quickstart)).isdisjoint(before)


def test_a_dead_engine_is_503_and_heals(quickstart: Any, client: httpx.Client) -> None:
    url = f"{quickstart.url}/v1/completions"
    killed = _engine_pids(quickstart)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    seen: set[int] = set()
    deadline = time.monotonic() + HEAL_DEADLINE_S
    while True:
        answer = client.post(url, json=BODY)
        seen.add(answer.status_code)
        if answer.status_code == 200:
            break
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["type"] == "service_unavailable_error"
        assert time.monotonic() < deadline, "the engine was not replaced"
        time.sleep(0.5)
    assert 503 in seen
    assert set(_engine_pids(quickstart)).isdisjoint(killed)


def test_ctrl_c_stops_everything_cleanly(quickstart: Any) -> None:
    assert quickstart.stop() == 0
    assert quickstart.output.rstrip().endswith("Stopped.")
    deadline = time.monotonic() + 30
    while quickstart.processes():
        assert time.monotonic() < deadline, quickstart.processes()
        time.sleep(0.5)
