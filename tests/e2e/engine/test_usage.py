"""What vLLM's own server says of usage in its answers, and what its messages tell the meter."""

import asyncio
import json
from typing import Any

import pytest

from rayserve_platform.core.usage import TELL_USAGE, USAGE_KEY

pytestmark = [
    pytest.mark.llm,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

CHAT = {"messages": [{"role": "user", "content": "Count to five."}]}
TEXT = {"prompt": ["The capital of France is", "One, two,"]}


async def ask(engine: Any, path: str, **body: Any) -> tuple[list[dict[str, Any]], tuple[int, int]]:
    """Return the documents of an answer, and what its messages told of usage, added up."""
    return await ask_with([], [], engine, path, body)


async def ask_with(
    headers: list[tuple[bytes, bytes]],
    told: list[tuple[int, int]],
    engine: Any,
    path: str,
    body: dict[str, Any],
) -> tuple[list[dict[str, Any]], tuple[int, int]]:
    """Ask with more headers; what the messages tell goes to `told` as it comes."""
    length = "max_completion_tokens" if "chat" in path else "max_tokens"
    raw = json.dumps({"temperature": 0, length: 8, "model": "smollm2", **body}).encode()
    parts = []

    waiting = [{"type": "http.request", "body": raw, "more_body": False}]

    async def receive():
        if not waiting:
            # vLLM listens for the client to leave, and this one stays.
            await asyncio.Event().wait()
        return waiting.pop()

    async def send(message):
        told.append(message.get(USAGE_KEY, (0, 0)))
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), *headers],
        "client": None,
        "server": None,
    }
    await engine.native(scope, receive, send)
    text = b"".join(parts).decode()
    if not body.get("stream"):
        documents = [json.loads(text)]
    else:
        lines = [line.removeprefix("data: ") for line in text.splitlines() if "data: " in line]
        documents = [json.loads(line) for line in lines if line != "[DONE]"]
    prompt, generated = (sum(numbers) for numbers in zip(*told, strict=True))
    return documents, (prompt, generated)


def said(usage: dict[str, Any]) -> tuple[int, int]:
    return usage["prompt_tokens"], usage["completion_tokens"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "n": 2, "temperature": 1.0, "seed": 1}),
        ("/v1/completions", TEXT),
        ("/v1/completions", {**TEXT, "n": 2, "temperature": 1.0, "seed": 1}),
    ],
    ids=["chat", "chat n=2", "two prompts", "two prompts n=2"],
)
async def test_an_answer_told_whole_or_bit_by_bit_is_counted_as_vllm_counts_it(smollm2, path, body):
    (whole,), told = await ask(smollm2, path, **body)
    assert told == said(whole["usage"])
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    (*_, last), _ = await ask(smollm2, path, **body, **asked)
    _, streamed = await ask(smollm2, path, **body, stream=True)
    assert streamed == said(last["usage"])


def without_moments(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2}),
        ("/v1/completions", {**TEXT, "n": 2, "temperature": 1.0, "seed": 1, "logprobs": 1}),
        ("/v1/completions", {**TEXT, "stop": [" the"], "echo": True}),
    ],
    ids=["chat", "two prompts n=2", "stop and echo"],
)
async def test_an_answer_whose_tokens_are_watched_is_the_same(smollm2, path, body):
    (plain,), told = await ask(smollm2, path, **body)
    (watched,), told_bit_by_bit = await ask_with([TELL_USAGE], [], smollm2, path, body)
    assert without_moments(watched) == without_moments(plain)
    assert told_bit_by_bit == told == said(plain["usage"])


async def test_an_answer_that_is_left_has_told_what_was_written(smollm2, eventually):
    told: list[tuple[int, int]] = []
    body = {**CHAT, "max_completion_tokens": 400, "min_tokens": 400}
    asking = asyncio.create_task(
        ask_with([TELL_USAGE], told, smollm2, "/v1/chat/completions", body)
    )
    await eventually(lambda: sum(generated for _, generated in told) > 4)
    assert not asking.done()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert sum(prompt for prompt, _ in told) > 4


async def test_the_responses_api_is_counted(smollm2):
    (answer,), told = await ask(
        smollm2, "/v1/responses", input="Count to five.", max_output_tokens=8
    )
    assert told == (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"])


async def test_the_messages_api_is_counted(smollm2):
    (answer,), told = await ask(smollm2, "/v1/messages", **CHAT)
    assert told == (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"])


async def test_what_is_refused_costs_nothing(smollm2):
    (answer,), told = await ask(smollm2, "/v1/chat/completions", **CHAT, max_completion_tokens=-1)
    assert "error" in answer
    assert told == (0, 0)


async def test_tokenizing_costs_nothing(smollm2):
    _, told = await ask(smollm2, "/tokenize", prompt="The capital of France is")
    assert told == (0, 0)
