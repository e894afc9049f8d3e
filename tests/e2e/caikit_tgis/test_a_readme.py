"""The README's lines against the real model as `make run CONFIG=caikit-tgis` serves it."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.llm, pytest.mark.timeout(900)]

README_SECTION = "Caikit-TGIS"
ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "tests/data/caikit/tgis_http"
MODEL = "smollm2-135m-instruct-caikit"
PROMPT = "Once upon a time, there was a"
STREAM = "/api/v1/task/server-streaming-text-generation"


def _recorded(file: str, name: str = "minimal") -> dict[str, Any]:
    cases = json.loads((RECORDED / f"{file}.json").read_text())["cases"]
    [found] = [case for case in cases if case["id"] == f"{file}/{name}"]
    answer: dict[str, Any] = json.loads(found["response"]["body"])
    return answer


def _messages(written: str) -> list[dict[str, Any]]:
    """Return the messages that grpcurl prints one after the other."""
    decoder, found = json.JSONDecoder(), []
    while written := written.lstrip():
        message, end = decoder.raw_decode(written)
        found.append(message)
        written = written[end:]
    return found


def test_a_line_of_the_readme_works(platform: Any, readme_line: str) -> None:
    written = platform.run_line(readme_line)
    # The recorded model's weights are rounded and this one's are not: they agree at first.
    begins = _recorded("text-generation", "max_new_tokens_5")["generated_text"]
    if "/tokenization" in readme_line:
        assert json.loads(written) == _recorded("tokenization")
        return
    if STREAM in readme_line:
        pieces = [json.loads(line[6:]) for line in written.splitlines() if line.startswith("data")]
        assert pieces[0]["generated_text"] == PROMPT
        text, last = _text(pieces[1:]), pieces[-1]["details"]
    elif "ServerStreaming" in readme_line:
        pieces = _messages(written)
        text, last = _text(pieces), pieces[-1]["details"]
    else:
        last = json.loads(written)
        text = last["generated_text"]
        assert last["producer_id"] == {"name": "Text Generation", "version": "0.1.0"}
    assert text.startswith(begins)
    assert (int(last["generated_tokens"]), last["finish_reason"]) == (20, "MAX_TOKENS")


def _text(pieces: list[dict[str, Any]]) -> str:
    return "".join(piece.get("generated_text", "") for piece in pieces)


def test_the_printed_curl_works(platform: Any) -> None:
    [line] = [line for line in platform.output.split("\n\n") if line.startswith("  curl")]
    assert json.loads(platform.run_line(line.strip()))["generated_text"]


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_caikit_nlp_client_generates(platform: Any, transport: str) -> None:
    client = str(ROOT / "tests/contract/caikit/client.py")
    where = [platform.url] if transport == "http" else platform.grpc.split(":")
    process = await asyncio.create_subprocess_exec(
        sys.executable, client, transport, *where, MODEL, stdout=asyncio.subprocess.PIPE
    )
    written, _ = await process.communicate()
    got = json.loads(written.splitlines()[-1])
    assert got["generate"]["result"]
    if transport == "grpc":
        assert "".join(got["stream"]["result"]) == got["generate"]["result"]


async def test_a_client_that_leaves_frees_the_engine(platform: Any) -> None:
    parameters = {"max_new_tokens": 1024, "min_new_tokens": 1024}
    asked = {"model_id": MODEL, "inputs": "Once upon a time", "parameters": parameters}
    async with httpx.AsyncClient(base_url=platform.url, timeout=60) as client:
        for _ in range(3):
            async with client.stream("POST", STREAM, json=asked) as answer:
                assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
                await anext(answer.aiter_lines())
        async with asyncio.timeout(30):
            while "vllm:num_requests_running{" in (metrics := await _running(client)):
                if all(line.endswith(" 0.0") for line in metrics.splitlines()):
                    return
                await asyncio.sleep(0.1)
            pytest.fail("the engine's metrics are not served")


async def _running(client: httpx.AsyncClient) -> str:
    text = (await client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
    return "\n".join(lines)


def test_ctrl_c_stops_everything_cleanly(platform: Any) -> None:
    assert platform.stop() == 0
    assert platform.output.rstrip().endswith("Stopped.")
