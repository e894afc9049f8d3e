"""The real model as `make run CONFIG=tgis` serves it: the README's lines, and grpcurl's way."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.llm, pytest.mark.timeout(900)]

README_SECTION = "TGIS"
ROOT = Path(__file__).parents[3]
QUERIED = re.compile(r"^tgi_request_success{.*} [1-9]", re.MULTILINE)


def test_a_line_of_the_readme_works(standalone: Any, readme_line: str) -> None:
    printed = standalone.run_line(readme_line)
    if "/GenerateStream" in readme_line:
        assert '"generated_token_count": 8' in printed  # vLLM may have merged some of them
        assert '"text": " Paris"' in printed
        assert '"stop_reason": "MAX_TOKENS"' in printed
    elif "/Generate" in readme_line:
        [answer] = json.loads(printed)["responses"]
        assert answer["text"].startswith(" Paris")
        assert (answer["inputTokenCount"], answer["generatedTokenCount"]) == (5, 20)
        assert answer["stopReason"] == "MAX_TOKENS"
    elif "/Tokenize" in readme_line:
        [answer] = json.loads(printed)["responses"]
        assert answer["tokens"] == ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"]
    elif "Health/Check" in readme_line:
        assert json.loads(printed) == {"status": "SERVING"}
    else:
        assert "tgi_request_success" in printed


def test_the_line_of_the_configs_own_readme_works(standalone: Any) -> None:
    text = (ROOT / "configs/tgis/README.md").read_text()
    [line] = re.findall(r"^```\n(grpcurl.*?)^```", text, re.MULTILINE | re.DOTALL)
    [answer] = json.loads(standalone.run_line(line))["responses"]
    assert answer["text"].startswith(" Paris")


def test_dashboards_find_what_they_ask_for(standalone: Any, client: httpx.Client) -> None:
    standalone.run_line(
        'grpcurl -plaintext -proto protos/generation.proto -d \'{"requests": [{"text": "x"}]}\' '
        "127.0.0.1:9000 fmaas.GenerationService/Generate"
    )
    text = client.get(f"{standalone.url}/metrics").text
    assert QUERIED.search(text), text
    for name in ("tgi_request_duration_sum", "tgi_request_inference_duration_count"):
        [line] = [line for line in text.splitlines() if line.startswith(name)]
        assert float(line.split()[-1]) > 0


def test_openai_is_spoken_beside_it(standalone: Any, client: httpx.Client) -> None:
    body = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
    answer = client.post(f"{standalone.url}/v1/completions", json=body)
    assert answer.json()["choices"][0]["text"].startswith(" Paris")


def test_a_model_with_a_bad_schema_is_the_callers_mistake(standalone: Any) -> None:
    body = {
        "requests": [{"text": "x"}],
        "params": {"decoding": {"json_schema": '{"type":'}, "stopping": {"max_new_tokens": 4}},
    }
    line = (
        f"grpcurl -plaintext -proto protos/generation.proto -d '{json.dumps(body)}' "
        "127.0.0.1:9000 fmaas.GenerationService/Generate 2>&1 || true"
    )
    printed = standalone.run_line(line)
    assert "Code: InvalidArgument" in printed
