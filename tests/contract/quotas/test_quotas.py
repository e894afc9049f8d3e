"""Shares of requests, tokens and places, on every protocol and both transports."""

import asyncio
import json
from typing import Any

import grpc
import openai
import pytest

from rayserve_platform.pb import kserve_inference_pb2 as kserve
from tests.contract.quotas.requests import CASES, CHAT, OIP, _tensors, send

ONE_A_DAY = {"requests": ["1/day"]}
USED_UP = "Rate limit reached: 1 requests per day (quota 'all'). Retry later."


@pytest.mark.parametrize(("transport", "name"), CASES)
async def test_a_request_too_many_is_refused_before_the_engine_is_asked(serve, transport, name):
    server = await serve(ONE_A_DAY)
    first = await send(server, transport, name)
    assert first.status == "ok", first
    asked = server.asked
    assert asked > 0
    refused = await send(server, transport, name)
    assert refused.status == ("429" if transport == "http" else "RESOURCE_EXHAUSTED")
    assert USED_UP in refused.text
    assert 1 <= int(refused.headers["retry-after"]) <= 2 * 86_400
    assert refused.headers["x-ratelimit-limit-requests"] == "1"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    assert server.asked == asked
    assert (await send(server, transport, name, "bob")).status == "ok"


@pytest.mark.parametrize(("transport", "name"), CASES)
async def test_an_answer_tells_what_is_left(serve, transport, name):
    server = await serve({"requests": ["10/day"], "tokens": ["1000000/day"]})
    for left in ("9", "8"):
        answered = await send(server, transport, name)
        assert answered.status == "ok"
        assert answered.headers["x-ratelimit-limit-requests"] == "10"
        assert answered.headers["x-ratelimit-remaining-requests"] == left
        assert answered.headers["x-ratelimit-limit-tokens"] == "1000000"


TOKENLESS = {"kserve tensors", "openai tokenize"}


async def used_by_engine(server: Any) -> int:
    """What the engine reads and writes for the requests it was asked, by its own count."""
    seen, total = list(server.alpha.seen), 0
    for request in seen:
        verb = type(request).__name__
        if verb == "Generate":
            async for chunks in server.alpha.generate(request):
                for chunk in chunks:
                    total += chunk.prompt.token_count if chunk.prompt else 0
                    total += chunk.generated_tokens if chunk.stop is not None else 0
        elif verb == "Embed":
            total += sum((await server.alpha.embed(request)).token_counts)
    return total


@pytest.mark.parametrize(("transport", "name"), CASES)
async def test_tokens_are_counted_as_the_engine_counts_them(serve, transport, name):
    server = await serve({"tokens": ["1000000/day"]})
    await send(server, transport, name)
    used = await used_by_engine(server)
    assert (used > 0) == (name not in TOKENLESS)
    after = await send(server, transport, name)
    assert int(after.headers["x-ratelimit-remaining-tokens"]) == 1_000_000 - used
    (line, _) = server.audit()
    assert line["prompt_tokens"] + line["generated_tokens"] == used


@pytest.mark.parametrize(
    ("transport", "name"),
    [case for case in CASES if case[1] not in TOKENLESS],
)
async def test_a_budget_that_is_used_up_refuses_the_next_request(serve, transport, name):
    server = await serve({"tokens": ["1/day"]})
    assert (await send(server, transport, name)).status == "ok"
    asked = server.asked
    refused = await send(server, transport, name)
    assert refused.status in ("429", "RESOURCE_EXHAUSTED")
    assert "1 tokens per day (quota 'all')" in refused.text
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert server.asked == asked
    assert (await send(server, transport, name, "bob")).status == "ok"


async def test_the_openai_client_raises_its_rate_limit_error_with_the_headers(serve):
    server = await serve(ONE_A_DAY)
    transport = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False)
    client = openai.AsyncOpenAI(
        base_url=f"{server.http.base_url}/v1".replace("//v1", "/v1"),
        api_key=server.keys["alice"],
        max_retries=0,
        http_client=transport,
    )
    async with client:
        messages: Any = [{"role": "user", "content": "hi"}]
        raw = await client.chat.completions.with_raw_response.create(
            model="alpha", messages=messages
        )
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(
                    model="alpha", messages=messages, stream=stream
                )
            error = caught.value
            assert error.code == "rate_limit_exceeded"
            assert error.response.headers["x-ratelimit-limit-requests"] == "1"
            assert int(error.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", {"error": {"message", "type", "param", "code"}}),
        ("/api/v1/task/text-generation", {"details", "code", "id"}),
        ("/v2/models/alpha/generate", {"error"}),
    ],
)
async def test_a_refusal_has_the_protocol_s_own_shape(serve, path, shape):
    server = await serve(ONE_A_DAY)
    bodies = {
        "/v1/chat/completions": CHAT,
        "/api/v1/task/text-generation": {"model_id": "alpha", "inputs": "hi"},
        "/v2/models/alpha/generate": {"text_input": "hi"},
    }
    answers = [
        await server.http.post(path, json=bodies[path], headers=server.as_("alice"))
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 429]
    body = answers[1].json()
    if isinstance(shape, dict):
        assert shape["error"] <= set(body["error"])
        assert body["error"]["type"] == "rate_limit_error"
    else:
        assert shape == set(body)


async def test_lists_metadata_and_probes_cost_nothing(serve):
    server = await serve(ONE_A_DAY)
    for path in ("/v1/models", "/v1/models/alpha", "/v2/models/beta", "/v2", "/info/models"):
        for _ in range(3):
            answer = await server.http.get(path, headers=server.as_("alice"))
            assert answer.status_code == 200, path
    assert (await send(server, "http", "openai chat")).status == "ok"
    assert (await server.http.get("/health")).status_code == 200


async def test_a_request_that_no_engine_was_asked_for_costs_nothing(serve):
    server = await serve(ONE_A_DAY)
    headers = server.as_("alice")
    for body in ({**CHAT, "model": "nobody"}, {**CHAT, "temperature": "hot"}, {"messages": 3}):
        answer = await server.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code in (400, 404)
    assert (await send(server, "http", "openai chat")).status == "ok"


async def test_a_place_is_taken_while_a_stream_lasts_and_given_back_when_its_client_leaves(
    serve, eventually
):
    server = await serve({"concurrent": 1}, engine={"token_s": 600})
    body = {**CHAT, "stream": True, "max_tokens": 2000}
    async with server.http.stream(
        "POST", "/v1/chat/completions", json=body, headers=server.as_("alice")
    ) as answer:
        assert answer.status_code == 200
        # Kept: a stream whose iterator is forgotten is closed.
        lines = answer.aiter_lines()
        await anext(lines)
        for transport, name in (("http", "openai embeddings"), ("rpc", "tgis streamed")):
            refused = await send(server, transport, name)
            assert refused.status in ("429", "RESOURCE_EXHAUSTED")
            assert "1 requests at a time (quota 'all')" in refused.text
            assert refused.headers["retry-after"] == "1"
        assert (await send(server, "http", "openai embeddings", "bob")).status == "ok"
    await eventually(lambda: server.alpha.running == 0)
    assert (await send(server, "http", "openai embeddings")).status == "ok"


async def test_a_stream_that_is_left_has_cost_what_came(serve, eventually):
    server = await serve({"tokens": ["1000000/day"]}, engine={"token_s": 0.01})
    body = {**CHAT, "stream": True, "max_tokens": 2000}
    events = 0
    async with server.http.stream(
        "POST", "/v1/chat/completions", json=body, headers=server.as_("alice")
    ) as answer:
        async for line in answer.aiter_lines():
            events += "content" in line
            if events == 5:
                break
    await eventually(lambda: server.alpha.running == 0)
    await eventually(lambda: len(server.audit()) == 1)
    (line,) = server.audit()
    assert 4 <= line["generated_tokens"] < 2000
    assert line["prompt_tokens"] > 0
    left = (await send(server, "http", "openai chat")).headers["x-ratelimit-remaining-tokens"]
    assert int(left) == 1_000_000 - line["generated_tokens"] - line["prompt_tokens"]


async def test_each_message_of_a_stream_of_requests_is_one(serve):
    server = await serve({"requests": ["2/day"], "concurrent": 1})
    call: Any = server.channel.stream_stream(
        OIP + "ModelStreamInfer",
        request_serializer=kserve.ModelInferRequest.SerializeToString,
        response_deserializer=kserve.ModelStreamInferResponse.FromString,
    )(iter([_tensors() for _ in range(4)]), metadata=tuple(server.as_("alice").items()))
    answers = [answer async for answer in call]
    assert [bool(answer.error_message) for answer in answers] == [False, False, True, True]
    assert "2 requests per day" in answers[2].error_message
    assert await call.code() is grpc.StatusCode.OK
    assert len(server.beta.seen) == 2
    (line,) = server.audit()
    assert (line["decision"], line["rule"]) == ("deny", "all/requests")


async def test_the_texts_of_a_batch_are_one_request(serve):
    server = await serve({"requests": ["2/day"], "concurrent": 1})
    assert (await send(server, "rpc", "tgis batch")).status == "ok"
    assert (await send(server, "http", "openai completion")).status == "ok"
    assert len(server.alpha.seen) == 4
    assert (await send(server, "rpc", "tgis batch")).status == "RESOURCE_EXHAUSTED"


async def test_one_count_holds_on_all_protocols_and_both_transports(serve):
    server = await serve({"requests": ["3/day"]})
    order = [("http", "openai chat"), ("rpc", "tgis batch"), ("http", "kserve generate")]
    assert [(await send(server, *case)).status for case in order] == ["ok"] * 3
    assert (await send(server, "rpc", "caikit text")).status == "RESOURCE_EXHAUSTED"


async def test_a_group_s_quota_comes_from_the_key(serve):
    server = await serve({"name": "bobs", "groups": ["bobs"], "requests": ["5/day"]}, ONE_A_DAY)
    statuses = {
        who: [(await send(server, "http", "openai chat", who)).status for _ in range(6)]
        for who in ("alice", "bob")
    }
    assert statuses == {"alice": ["ok"] + ["429"] * 5, "bob": ["ok"] * 5 + ["429"]}


async def test_many_at_once_do_not_get_more_than_their_share(serve):
    server = await serve({"requests": ["10/day"]})
    both = [("http", "openai chat"), ("rpc", "tgis batch")]
    outcomes = await asyncio.gather(*[send(server, *both[n % 2]) for n in range(60)])
    assert [outcome.status for outcome in outcomes].count("ok") == 10


async def test_the_audit_log_has_one_line_a_decision_and_no_secret(serve, tmp_path):
    server = await serve({"requests": ["1/day"]})
    secret = "a prompt that nobody else may read"
    body = {**CHAT, "messages": [{"role": "user", "content": secret}]}
    headers = {**server.as_("alice"), "x-request-id": "mine"}
    answer = await server.http.post("/v1/chat/completions", json=body, headers=headers)
    await server.http.post("/v1/chat/completions", json=body, headers=headers)
    await server.http.post(
        "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {'x' * 40}"}
    )
    await send(server, "rpc", "tgis batch", "bob")
    await server.http.get("/health")
    allowed, used_up, unknown, over_grpc = server.audit()
    usage = answer.json()["usage"]
    assert allowed["request_id"] == "mine"
    assert allowed["principal"] == "alice"
    assert allowed["key_id"] == server.keys["alice"].split("_")[1]
    assert (allowed["protocol"], allowed["model"]) == ("openai", "alpha")
    assert (allowed["decision"], allowed["rule"], allowed["code"]) == ("allow", None, 200)
    assert allowed["prompt_tokens"] == usage["prompt_tokens"]
    assert allowed["generated_tokens"] == usage["completion_tokens"]
    assert allowed["duration_ms"] >= 0
    assert allowed["time"].endswith("+00:00")
    assert (used_up["decision"], used_up["rule"], used_up["code"]) == ("deny", "all/requests", 429)
    assert used_up["generated_tokens"] == 0
    assert (unknown["decision"], unknown["code"]) == ("deny", 401)
    assert unknown["principal"] is unknown["key_id"] is None
    assert (over_grpc["protocol"], over_grpc["principal"]) == ("tgis", "bob")
    assert (over_grpc["decision"], over_grpc["code"]) == ("allow", "OK")
    written = (tmp_path / "audit.jsonl").read_text()
    for hidden in (secret, server.keys["alice"].split("_")[2], "x" * 40, "Bearer"):
        assert hidden not in written
    assert all(json.dumps(key) in json.dumps(allowed) for key in ("time", "route"))
