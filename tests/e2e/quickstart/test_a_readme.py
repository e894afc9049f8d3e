"""The README's first lines and the block that `make run` prints, run as they stand."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

pytestmark = [pytest.mark.e2e, pytest.mark.llm, pytest.mark.timeout(900)]

README_SECTION = "OpenAI"
MODEL = "smollm2-135m-instruct"


def test_a_line_of_the_readme_works(quickstart: Any, readme_line: str) -> None:
    answer = quickstart.run_line(readme_line)
    if "grpc.health" in readme_line:
        assert json.loads(answer) == {"status": "SERVING"}
    elif '"stream": true' in readme_line:
        assert answer.rstrip().endswith("data: [DONE]")
        assert '"completion_tokens":' in answer
    elif "capital of France?" in readme_line:
        content = json.loads(answer)["choices"][0]["message"]["content"]
        assert content == "The capital of France is Paris."
    elif "json_schema" in readme_line:
        person = json.loads(json.loads(answer)["choices"][0]["message"]["content"])
        assert set(person) == {"name", "age"}
        assert isinstance(person["age"], int)
        assert len(person["name"]) <= 12
    elif "/generate" in readme_line:
        assert "Paris" in json.loads(answer)["text_output"]
    elif "/tokenize" in readme_line:
        assert json.loads(answer)["count"] == 2
    else:
        [choice] = json.loads(answer)["choices"]
        assert len(choice["logprobs"]["token_logprobs"]) == 5


def test_the_printed_curl_works(quickstart: Any) -> None:
    found = re.search(r"^  (curl .*?}')$", quickstart.output, re.MULTILINE | re.DOTALL)
    assert found is not None, quickstart.output
    answer = json.loads(quickstart.run_line(found[1]))
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_the_choice_of_the_engine_is_told(quickstart: Any) -> None:
    assert "engine: auto: OpenVINO GenAI" in quickstart.output


def test_the_configs_variables_reach_what_serve_starts(quickstart: Any) -> None:
    options = yaml.safe_load(quickstart.config.read_text())["controller_options"]
    variables = {
        f"{name}={value}".encode() for name, value in options["runtime_env"]["env_vars"].items()
    }
    # Ray's own processes write their titles over their environments; these are children of the
    # replica and of Serve's proxy, and have theirs.
    for program in ("runtimes.genai.worker", "bin/haproxy"):
        pids = [pid for pid, name in quickstart.processes().items() if program in name]
        assert pids, program
        for pid in pids:
            assert variables <= {*Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}, program


def test_the_start_of_serve_raises_no_false_alarm(quickstart: Any) -> None:
    assert "Submitted deploy config successfully" in quickstart.output
    assert "existing Serve app" not in quickstart.output


def test_the_same_model_answers_tgis_and_caikit(quickstart: Any, client: httpx.Client) -> None:
    line = (
        "grpcurl -plaintext -d '"
        '{"requests": [{"text": "The capital of France is"}], '
        '"params": {"stopping": {"max_new_tokens": 5}}}'
        "' 127.0.0.1:9000 fmaas.GenerationService/Generate"
    )
    [response] = json.loads(quickstart.run_line(line))["responses"]
    assert (response["generated_token_count"], response["stop_reason"]) == (5, "MAX_TOKENS")
    asked = {
        "model_id": MODEL,
        "inputs": "The capital of France is",
        "parameters": {"max_new_tokens": 5},
    }
    found = client.post(f"{quickstart.url}/api/v1/task/text-generation", json=asked).json()
    assert found["generated_text"] == response["text"]
    assert "Paris" in response["text"]


def test_the_same_model_answers_kserve_v2(quickstart: Any, client: httpx.Client) -> None:
    model = f"{quickstart.url}/v2/models/{MODEL}"
    parameters = {"max_tokens": 5, "temperature": 0}
    asked = {"text_input": "The capital of France is", "parameters": parameters}
    written = client.post(f"{model}/generate", json=asked).json()["text_output"]
    assert "Paris" in written
    tensor = {
        "name": "text_input",
        "shape": [1],
        "datatype": "BYTES",
        "data": [asked["text_input"]],
    }
    inferred = client.post(f"{model}/infer", json={"inputs": [tensor], "parameters": parameters})
    assert inferred.json()["outputs"][0]["data"] == [written]
    line = (
        "grpcurl -plaintext -d '"
        f'{{"name": "{MODEL}"}}'
        "' 127.0.0.1:9000 inference.GRPCInferenceService/ModelReady"
    )
    assert json.loads(quickstart.run_line(line)) == {"ready": True}


def test_what_vllm_has_besides_is_refused_by_name(quickstart: Any, client: httpx.Client) -> None:
    asked = {"prompt": "Hi", "logit_bias": {"5": 1}}
    answer = client.post(f"{quickstart.url}/v1/completions", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "logit_bias"


def test_ctrl_c_stops_everything_cleanly(quickstart: Any) -> None:
    assert quickstart.stop() == 0
    assert quickstart.output.rstrip().endswith("Stopped.")
