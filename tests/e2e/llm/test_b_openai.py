"""vLLM's features through the separate ingress, with the real model."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.llm, pytest.mark.timeout(900)]

MODEL = "smollm2-135m-instruct"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}

NAMED = {"type": "function", "function": {"name": "get_weather"}}


def _chat(client: httpx.Client, url: str, text: str, **more: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **more}
    return client.post(f"{url}/v1/chat/completions", json=body)


def _metric(client: httpx.Client, url: str, name: str) -> float:
    for line in client.get(f"{url}/metrics").text.splitlines():
        if line.startswith(name):
            return float(line.split()[-1])
    raise AssertionError(f"{name} is not at /metrics")


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_tool_call_fits_its_schema(quickstart: Any, client: httpx.Client, choice: Any) -> None:
    answer = _chat(
        client,
        quickstart.url,
        "What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice=choice,
        max_tokens=80,
    )
    assert answer.status_code == 200, answer.text
    call = answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
    arguments = json.loads(call["arguments"])
    assert set(arguments) == {"city"}
    assert isinstance(arguments["city"], str)


@pytest.mark.parametrize(
    ("guide", "fits"),
    [
        ({"choice": ["red", "green"]}, lambda text: text in ("red", "green")),
        ({"regex": "[0-9]{3}"}, lambda text: len(text) == 3 and text.isdigit()),
        ({"grammar": 'root ::= "yes" | "no"'}, lambda text: text in ("yes", "no")),
    ],
)
def test_structured_outputs(
    quickstart: Any, client: httpx.Client, guide: dict[str, Any], fits: Any
) -> None:
    answer = _chat(client, quickstart.url, "Choose.", structured_outputs=guide, max_tokens=12)
    assert answer.status_code == 200, answer.text
    assert fits(answer.json()["choices"][0]["message"]["content"])


def test_parameters_of_vllm_work(quickstart: Any, client: httpx.Client) -> None:
    answer = client.post(
        f"{quickstart.url}/v1/completions",
        json={
            "prompt": "One two three",
            "max_tokens": 6,
            "min_tokens": 6,
            "ignore_eos": True,
            "n": 2,
            "seed": 7,
            "temperature": 0.8,
            "logprobs": 2,
            "echo": True,
        },
    )
    assert answer.status_code == 200, answer.text
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert all(choice["text"].startswith("One two three") for choice in choices)
    assert all(len(choice["logprobs"]["tokens"]) == 9 for choice in choices)
    assert answer.json()["usage"]["completion_tokens"] == 12


def test_stop_and_seed(quickstart: Any, client: httpx.Client) -> None:
    body = {"prompt": "Count: 1, 2, 3,", "max_tokens": 30, "temperature": 1.0, "seed": 11}
    url = f"{quickstart.url}/v1/completions"
    texts = {client.post(url, json=body).json()["choices"][0]["text"] for _ in range(2)}
    assert len(texts) == 1
    stopped = client.post(url, json={**body, "temperature": 0, "stop": [","]}).json()["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert "," not in stopped["text"]


def test_responses_and_token_counts(quickstart: Any, client: httpx.Client) -> None:
    responses = client.post(
        f"{quickstart.url}/v1/responses", json={"input": "Say hi.", "max_output_tokens": 8}
    )
    assert responses.status_code == 200, responses.text
    assert responses.json()["object"] == "response"
    counted = client.post(
        f"{quickstart.url}/v1/messages/count_tokens",
        json={"model": MODEL, "messages": [{"role": "user", "content": "Say hi."}]},
    )
    assert counted.json()["input_tokens"] == responses.json()["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "nope", "prompt": "x"}, 404, MODEL),
        ({"prompt": "word " * 3000}, 400, "2048"),
        ({"prompt": "x", "max_tokens": -1}, 400, "max_tokens"),
        ({"prompt": "x", "temperature": "hot"}, 400, "temperature"),
        ({"prompt": "x", "structured_outputs": {"regex": "("}}, 400, "regex"),
    ],
)
def test_a_callers_mistake_is_named(
    quickstart: Any, client: httpx.Client, body: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post(f"{quickstart.url}/v1/completions", json=body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]


def test_malformed_json_is_400(quickstart: Any, client: httpx.Client) -> None:
    answer = client.post(f"{quickstart.url}/v1/completions", content=b'{"prompt": ')
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/sleep", "/invocations", "/v1/load_lora_adapter"])
def test_operator_routes_cannot_be_reached(
    quickstart: Any, client: httpx.Client, path: str
) -> None:
    assert client.post(quickstart.url + path, json={}).status_code == 404


def test_the_openapi_document_has_only_allowed_routes(
    quickstart: Any, client: httpx.Client
) -> None:
    paths = client.get(f"{quickstart.url}/openapi.json").json()["paths"]
    assert "/v1/chat/completions" in paths
    assert not {"/invocations", "/ping", "/load", "/v1/embeddings"} & set(paths)
    assert client.get(f"{quickstart.url}/docs").status_code == 200


def test_leaving_a_stream_aborts_the_request_in_the_engine(
    quickstart: Any, client: httpx.Client
) -> None:
    """Seen in the engine's own count of running requests."""
    running = "vllm:num_requests_running"
    body = {"prompt": "Once upon a time", "max_tokens": 1900, "stream": True, "ignore_eos": True}
    with client.stream("POST", f"{quickstart.url}/v1/completions", json=body) as answer:
        # Kept: httpx leaves the answer when its iterator goes.
        lines = answer.iter_lines()
        assert next(lines)
        deadline = time.monotonic() + 10
        while _metric(client, quickstart.url, running) < 1:
            assert time.monotonic() < deadline, "the engine never ran the request"
    deadline = time.monotonic() + 10
    while _metric(client, quickstart.url, running) > 0:
        assert time.monotonic() < deadline, "the engine runs on"
        time.sleep(0.1)


def test_engine_metrics_reach_rays_export_with_labels(
    quickstart: Any, client: httpx.Client
) -> None:
    _chat(client, quickstart.url, "Hello", max_tokens=2)
    targets = json.loads((quickstart.session / "prom_metrics_service_discovery.json").read_text())
    wanted = ("ray_vllm_generation_tokens_total", "ray_vllm_num_requests_running")
    deadline = time.monotonic() + 60
    missing = set(wanted)
    while missing:
        assert time.monotonic() < deadline, f"not exported: {missing}"
        time.sleep(2)
        text = ""
        for target in targets[0]["targets"]:
            text += client.get(f"http://{target}/metrics").text
        for line in text.splitlines():
            name = line.partition("{")[0]
            if name in missing:
                for label in (
                    'application="smollm2"',
                    'deployment="Runtime"',
                    'replica="',
                    f'model_name="{MODEL}"',
                ):
                    assert label in line
                missing.discard(name)


def test_the_ingress_is_small_and_has_no_engine(quickstart: Any) -> None:
    pids = [
        pid
        for pid, name in quickstart.processes().items()
        if "ServeReplica:smollm2:Ingress" in name
    ]
    assert len(pids) == 1
    process = Path(f"/proc/{pids[0]}")
    maps = (process / "maps").read_text()
    assert "libtorch" not in maps
    assert "vllm" not in maps
    status = (process / "status").read_text()
    [rss] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    rss_kb = int(rss.split()[1])
    assert rss_kb <= 350 * 1024
