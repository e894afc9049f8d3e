"""Streamed answers: server-sent events in OpenAI's shape, the same text as whole ones."""

import itertools

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Chunk
from rayserve_platform.runtimes.fake import FakeRuntime, writing

MESSAGES = [{"role": "user", "content": "Tell me about foxes."}]
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

CASES = [
    {},
    {"max_tokens": 1},
    {"max_tokens": 7, "n": 3},
    {"seed": 5, "stop": ["fox", "lazy dog"]},
    {"stop": "jumps over", "include_stop_str_in_output": True},
    {"stop": ["zzz"], "max_tokens": 12},
    {"max_tokens": 60, "ignore_eos": True},
]


async def streamed(server, events, path, **body):
    response = await server.client.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    found = events(response.text)
    assert found[-1] == "[DONE]"
    assert found.count("[DONE]") == 1
    return found[:-1]


async def chat_chunks(server, events, **body) -> list[ChatCompletionChunk]:
    found = await streamed(server, events, CHAT, messages=MESSAGES, **body)
    return [ChatCompletionChunk.model_validate(event, strict=True) for event in found]


@pytest.mark.parametrize("options", CASES)
async def test_streamed_and_whole_chats_are_the_same(serve_http, events, options):
    server = await serve_http()
    body = {"messages": MESSAGES, **options}
    whole = ChatCompletion.model_validate_json((await server.client.post(CHAT, json=body)).content)
    chunks = await chat_chunks(server, events, **options)
    for choice in whole.choices:
        own = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert own[0].delta.role == "assistant"
        assert own[0].delta.content == ""
        assert "".join(c.delta.content or "" for c in own) == choice.message.content
        reasons = [c.finish_reason for c in own]
        assert reasons == [None] * (len(own) - 1) + [choice.finish_reason]
        assert (own[-1].model_extra or {})["stop_reason"] == (choice.model_extra or {})[
            "stop_reason"
        ]


@pytest.mark.parametrize("options", [*CASES, {"prompt": ["a", "b", "c"], "n": 2}])
async def test_streamed_and_whole_completions_are_the_same(serve_http, events, options):
    server = await serve_http()
    body = {"prompt": "Once", **options}
    whole = Completion.model_validate_json((await server.client.post(TEXT, json=body)).content)
    found = await streamed(server, events, TEXT, **body)
    chunks = [c for event in found for c in event["choices"]]
    assert {c["index"] for c in chunks} == {c.index for c in whole.choices}
    for choice in whole.choices:
        own = [c for c in chunks if c["index"] == choice.index]
        assert "".join(c["text"] for c in own) == choice.text
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == [choice.finish_reason]
        assert own[-1]["finish_reason"] == choice.finish_reason
    assert all(event["object"] == "text_completion" for event in found)


async def test_all_events_of_a_stream_share_their_head(serve_http, events):
    server = await serve_http()
    chunks = await chat_chunks(server, events, model="fake")
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert chunks[0].id.startswith("chatcmpl-")
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_usage_comes_in_a_last_event_without_choices(serve_http, events, path):
    server = await serve_http()
    body = {"messages": MESSAGES} if path == CHAT else {"prompt": "Once"}
    whole = (await server.client.post(path, json={**body, "n": 2, "max_tokens": 9})).json()
    options = {"include_usage": True}
    found = await streamed(server, events, path, **body, n=2, max_tokens=9, stream_options=options)
    *before, last = found
    assert all(event["usage"] is None for event in before)
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    if path == CHAT:
        ChatCompletionChunk.model_validate(last, strict=True)


@pytest.mark.parametrize("asked", [None, {"include_usage": False}, {"include_obfuscation": False}])
async def test_no_usage_comes_unasked(serve_http, events, asked):
    server = await serve_http()
    found = await streamed(server, events, TEXT, prompt="a", stream_options=asked)
    assert all("usage" not in event for event in found)
    assert all(event["choices"] for event in found)


async def test_continuous_usage_grows_to_the_total(serve_http, events):
    server = await serve_http()
    options = {"include_usage": True, "continuous_usage_stats": True}
    found = await streamed(
        server, events, CHAT, messages=MESSAGES, max_tokens=5, stream_options=options
    )
    counts = [event["usage"]["completion_tokens"] for event in found]
    assert counts == [0, 1, 2, 3, 4, 5, 5]
    assert found[-1]["choices"] == []


async def test_logprobs_of_a_streamed_chat_join_to_its_text(serve_http, events):
    server = await serve_http()
    chunks = await chat_chunks(server, events, max_tokens=6, logprobs=True, top_logprobs=2)
    text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    entries = [
        entry
        for chunk in chunks
        for c in chunk.choices
        if c.logprobs is not None
        for entry in c.logprobs.content or []
    ]
    assert "".join(entry.token for entry in entries) == text
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


async def test_offsets_of_streamed_completion_logprobs_run_on(serve_http, events):
    server = await serve_http()
    found = await streamed(server, events, TEXT, prompt=["a", "b"], max_tokens=4, logprobs=0)
    for index in (0, 1):
        logprobs = [c["logprobs"] for e in found for c in e["choices"] if c["index"] == index]
        offsets = itertools.chain.from_iterable(item["text_offset"] for item in logprobs)
        assert list(offsets) == [0, 1, 2, 3]


async def test_text_that_json_must_escape_survives_a_stream(serve_http, make_fake, events):
    odd = 'é"\\\n\u2028\x00\U0001f98a. '
    server = await serve_http(make_fake())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SENTENCE", odd)
        chunks = await chat_chunks(server, events, ignore_eos=True, max_tokens=len(odd))
    text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    assert sorted(text) == sorted(odd)


@pytest.mark.parametrize("prompts", ["one", ["one", "two"]])
async def test_a_failure_in_the_middle_of_a_stream_is_an_event_and_then_its_end(
    serve_http, make_fake, events, access_log, prompts
):
    server = await serve_http(make_fake(fail_after_tokens=3))
    body = {"prompt": prompts, "stream": True}
    response = await server.client.post(TEXT, json=body, headers={"x-request-id": "look"})
    assert response.status_code == 200
    *before, error, done = events(response.text)
    assert done == "[DONE]"
    assert sum(len(e["choices"][0]["text"]) for e in before) >= 3
    assert all(e["choices"][0]["finish_reason"] is None for e in before)
    assert error == {
        "error": {
            "message": "internal error (request id look)",
            "type": "internal_server_error",
            "param": None,
            "code": 500,
        }
    }
    assert "scripted" not in response.text
    assert [line["code"] for line in access_log()] == ["200/internal"]
    assert server.runtime.running == 0


async def test_what_the_engine_says_in_the_middle_of_a_stream_is_an_event_too(
    serve_http, make_fake, events, access_log
):
    class Dying(FakeRuntime):
        async def generate(self, request):
            yield (Chunk(text="once", generated_tokens=1),)
            raise PlatformError(Code.UNAVAILABLE, "The model's engine is not available.")

    server = await serve_http(Dying(make_fake()._settings))
    response = await server.client.post(TEXT, json={"prompt": "a", "stream": True})
    first, error, done = events(response.text)
    assert (first["choices"][0]["text"], done) == ("once", "[DONE]")
    assert error["error"]["message"] == "The model's engine is not available."
    assert error["error"]["code"] == 503
    assert [line["code"] for line in access_log()] == ["200/unavailable"]


async def test_a_failure_before_the_first_token_is_a_status(serve_http, make_fake):
    server = await serve_http(make_fake(fail_after_tokens=0))
    response = await server.client.post(TEXT, json={"prompt": "a", "stream": True})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/json"


async def test_a_failure_while_a_whole_answer_is_made_is_a_status(serve_http, make_fake):
    server = await serve_http(make_fake(fail_after_tokens=3))
    response = await server.client.post(TEXT, json={"prompt": ["a", "b"]})
    assert response.status_code == 500
    assert "scripted" not in response.text


async def test_the_first_token_is_sent_before_the_last_is_made(serve_http, make_fake):
    server = await serve_http(make_fake(token_s=600))
    body = {"prompt": "a", "stream": True}
    async with server.client.stream("POST", TEXT, json=body) as response:
        first = await anext(response.aiter_lines())
        assert first.startswith("data: {")
        assert server.runtime.running == 1
