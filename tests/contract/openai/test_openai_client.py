"""The official client works unchanged."""

import base64
import struct

import pytest

SENTENCE = "the quick brown fox jumps over the lazy dog. "


async def test_a_stream_is_the_same_text_as_a_whole_answer_for_every_way_to_read_it(
    serve_http, ask
):
    server = await serve_http()
    cases = (
        "chat",
        "chat_stream",
        "chat_stream_with_usage",
        "chat_stream_helper",
        "chat_async",
    )
    got = await ask(server.url, *cases)
    whole = got["chat"]
    text = whole["choices"][0]["message"]["content"]
    assert text
    assert text in SENTENCE * 2
    assert whole["request_id"]
    assert whole["usage"]["completion_tokens"] == len(text)
    for name in ("chat_stream", "chat_stream_with_usage"):
        pieces = [c["delta"].get("content", "") for e in got[name] for c in e["choices"]]
        assert "".join(pieces) == text
        assert len(pieces) > 2
    finish = [c["finish_reason"] for e in got["chat_stream"] for c in e["choices"]]
    assert finish[-1] == whole["choices"][0]["finish_reason"]
    assert set(finish[:-1]) == {None}
    last = got["chat_stream_with_usage"][-1]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert got["chat_stream_helper"]["text"] == text
    assert {"chunk", "content.delta", "content.done"} <= set(got["chat_stream_helper"]["kinds"])
    assert got["chat_async"] == text


async def test_a_chat_with_every_common_option_is_answered(serve_http, ask):
    server = await serve_http()
    answer = (await ask(server.url, "chat_of_every_option"))["chat_of_every_option"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for choice in answer["choices"]:
        entries = choice["logprobs"]["content"]
        assert "".join(entry["token"] for entry in entries).startswith(choice["message"]["content"])
        assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    (request,) = server.runtime.seen
    assert (request.sampling.seed, request.stopping.min_new_tokens) == (7, 5)


async def test_completions_whole_and_streamed_are_the_same(serve_http, ask):
    server = await serve_http()
    got = await ask(server.url, "completion", "completion_stream")
    choices = got["completion"]["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"] for choice in choices] == got["completion_stream"]
    for choice in choices:
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


async def test_embeddings_are_the_same_however_they_are_asked_for(serve_http, ask):
    server = await serve_http()
    got = await ask(server.url, "embeddings", "embeddings_as_floats", "embeddings_as_base64")
    vectors = [item["embedding"] for item in got["embeddings_as_floats"]["data"]]
    assert [len(vector) for vector in vectors] == [8, 8]
    by_default = [item["embedding"] for item in got["embeddings"]["data"]]
    packed = [item["embedding"] for item in got["embeddings_as_base64"]["data"]]
    assert by_default == [pytest.approx(vector, rel=1e-6) for vector in vectors]
    unpacked = [struct.unpack("<8f", base64.b64decode(text)) for text in packed]
    assert unpacked == [pytest.approx(vector, rel=1e-6) for vector in vectors]


async def test_models_are_listed_and_retrieved_also_with_a_slash(serve_http, make_fake, ask):
    server = await serve_http(make_fake(id="org/fake", aliases=("fake",)))
    got = await ask(server.url, "models", "model")
    assert [model["id"] for model in got["models"]] == ["org/fake", "fake"]
    assert got["model"] == got["models"][0]


async def test_mistakes_are_the_clients_own_errors(serve_http, ask):
    server = await serve_http()
    got = await ask(
        server.url, "unknown_model", "unknown_model_retrieved", "bad_request", "unsupported"
    )
    for name in ("unknown_model", "unknown_model_retrieved"):
        error = got[name]
        assert (error["type"], error["status"]) == ("NotFoundError", 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "Served models: fake." in error["message"]
    error = got["bad_request"]
    assert (error["type"], error["status"], error["param"]) == (
        "BadRequestError",
        400,
        "temperature",
    )
    error = got["unsupported"]
    assert (error["type"], error["param"]) == ("BadRequestError", "tools")
    assert all(error["request_id"] for error in got.values())


async def test_overload_is_a_rate_limit_after_which_the_client_tries_again(
    serve_http, make_fake, ask, access_log
):
    server = await serve_http(make_fake(overloaded=True))
    got = await ask(server.url, "plain_call", "retried_call")
    for error in got.values():
        assert (error["type"], error["status"]) == ("RateLimitError", 429)
        assert (error["code"], error["retry_after"]) == ("rate_limit_exceeded", "1")
    routes = [line["route"] for line in access_log()]
    assert routes == ["/v1/chat/completions", "/v1/completions", "/v1/completions"]


async def test_a_full_ingress_is_a_rate_limit(serve_http, make_fake, ask, eventually):
    limits = {"max_concurrent_requests": 1}
    server = await serve_http(make_fake(token_s=600), ingress={"limits": limits})
    body = {"prompt": "a", "stream": True}
    async with server.client.stream("POST", "/v1/completions", json=body):
        error = (await ask(server.url, "plain_call"))["plain_call"]
    assert (error["type"], error["retry_after"]) == ("RateLimitError", "1")


async def test_a_failure_is_an_internal_error_with_an_id_to_look_up(serve_http, make_fake, ask):
    server = await serve_http(make_fake(fail_after_tokens=2))
    got = await ask(server.url, "plain_call", "stream_that_fails")
    error = got["plain_call"]
    assert (error["type"], error["status"]) == ("InternalServerError", 500)
    assert error["request_id"] in error["message"]
    assert "scripted" not in error["message"]
    broken = got["stream_that_fails"]
    assert broken["type"] == "APIError"
    assert "internal error (request id " in broken["message"]
    assert len(broken["text"]) == 2


async def test_a_client_that_stops_waiting_aborts_its_request(
    serve_http, make_fake, ask, access_log, eventually
):
    server = await serve_http(make_fake(first_token_s=600))
    error = (await ask(server.url, "timeout"))["timeout"]
    assert error["type"] == "APITimeoutError"
    await eventually(lambda: len(access_log()) == 1)
    assert server.runtime.running == 0
    assert [line["code"] for line in access_log()] == [499]


async def test_a_client_that_leaves_a_stream_aborts_its_request(
    serve_http, make_fake, ask, access_log, eventually
):
    server = await serve_http(make_fake(token_s=0.05, max_model_len=10**6))
    piece = (await ask(server.url, "stream_left"))["stream_left"]
    assert len(piece) == 1
    await eventually(lambda: len(access_log()) == 1)
    assert server.runtime.running == 0
    (line,) = access_log()
    assert (line["code"], line["client_gone"]) == (200, True)
