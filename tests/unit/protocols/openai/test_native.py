"""Requests that a runtime's own HTTP server answers: what it is given, what comes back."""

import asyncio

import pytest

from rayserve_platform.core.cards import Adapter

CHAT = "/v1/chat/completions"
CHAT_ROUTE = f"POST {CHAT}"
BODY = {"model": "native", "messages": [{"role": "user", "content": "hi"}], "tools": [{"x": 1}]}


async def test_a_body_goes_to_the_runtimes_own_server_as_it_came(serve_http, make_native):
    native = make_native(CHAT_ROUTE, answer=(b'{"choices": ', b"[]}"), status=200)
    server = await serve_http(native)
    raw = b'{ "model": "native",\n "x": 123456789012345678901234567890 }'
    response = await server.client.post(f"{CHAT}?a=b", content=raw)
    assert response.status_code == 200
    assert response.content == b'{"choices": []}'
    (call,) = native.calls
    assert call.body == raw
    assert call.scope["method"] == "POST"
    assert call.scope["path"] == CHAT
    assert call.scope["query_string"] == b"a=b"
    assert call.scope["root_path"] == ""
    assert call.header(b"content-length") == [b"%d" % len(raw)]
    assert native.seen == []


async def test_the_answer_passes_unchanged_with_one_request_id(serve_http, make_native):
    headers = [(b"content-type", b"application/json"), (b"x-own", b"1"), (b"x-own", b"2")]
    native = make_native(CHAT_ROUTE, headers=headers, answer=(b"{}",), status=201)
    server = await serve_http(native)
    response = await server.client.post(CHAT, json=BODY, headers={"x-request-id": "mine"})
    assert response.status_code == 201
    assert response.headers.get_list("x-own") == ["1", "2"]
    assert response.headers.get_list("x-request-id") == ["mine"]


async def test_the_headers_of_an_answer_may_be_any_iterable(serve_http, make_native):
    native = make_native(CHAT_ROUTE, headers=((b"content-type", b"text/plain"),))
    server = await serve_http(native)
    response = await server.client.post(CHAT, json=BODY, headers={"x-request-id": "mine"})
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "mine"
    assert native.headers == ((b"content-type", b"text/plain"),)


async def test_an_answer_that_names_a_request_id_does_not_double_it(serve_http, make_native):
    native = make_native(CHAT_ROUTE, headers=[(b"x-request-id", b"the-engines-own")])
    server = await serve_http(native)
    response = await server.client.post(CHAT, json=BODY, headers={"x-request-id": "mine"})
    assert response.headers.get_list("x-request-id") == ["mine"]


@pytest.mark.parametrize("sent", ["mine", None, "not fit for a log"])
async def test_the_request_id_is_passed_on_once(serve_http, make_native, sent):
    native = make_native(CHAT_ROUTE)
    server = await serve_http(native)
    headers = {"x-request-id": sent} if sent else {}
    response = await server.client.post(CHAT, json=BODY, headers=headers)
    (call,) = native.calls
    assert call.header(b"x-request-id") == [response.headers["x-request-id"].encode()]


@pytest.mark.parametrize(
    "kind",
    ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8", None],
)
async def test_a_json_body_is_called_json_whatever_the_client_calls_it(
    serve_http, make_native, kind
):
    native = make_native(CHAT_ROUTE)
    server = await serve_http(native)
    headers = {"content-type": kind} if kind else {}
    response = await server.client.post(CHAT, content=b'{"model": "native"}', headers=headers)
    assert response.status_code == 200
    (call,) = native.calls
    assert call.header(b"content-type") == [b"application/json"]


async def test_a_chunked_body_is_passed_with_its_length(serve_http, make_native):
    async def pieces():
        yield b'{"model": '
        yield b'"native"}'

    native = make_native(CHAT_ROUTE)
    server = await serve_http(native)
    assert (await server.client.post(CHAT, content=pieces())).status_code == 200
    (call,) = native.calls
    assert call.header(b"transfer-encoding") == []
    assert call.header(b"content-length") == [b"19"]
    assert call.json == {"model": "native"}


async def test_an_upload_keeps_its_form_and_boundary(serve_http, make_native):
    native = make_native("POST /v1/audio/transcriptions")
    server = await serve_http(native)
    response = await server.client.post("/v1/audio/transcriptions", files={"file": b"\x00\xff"})
    assert response.status_code == 200
    (call,) = native.calls
    (kind,) = call.header(b"content-type")
    assert kind.startswith(b"multipart/form-data; boundary=")
    assert b"\x00\xff" in call.body


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ({"model": "native"}, "native"),
        ({"model": "alias"}, "alias"),
        ({"model": "poet"}, "poet"),
        ({"model": "gateways-name"}, "native"),
        ({"model": None}, "native"),
        ({"model": ""}, "native"),
        ({}, "native"),
    ],
)
async def test_the_server_reads_a_model_name_that_it_knows(serve_http, make_native, sent, got):
    poet = Adapter(name="poet", root="/lora/poet")
    native = make_native(CHAT_ROUTE, aliases=("alias",), adapters=(poet,))
    server = await serve_http(("gateways-name", native))
    body = {**sent, "messages": [{"role": "user", "content": "é"}], "seed": 2**53 + 1}
    assert (await server.client.post(CHAT, json=body)).status_code == 200
    (call,) = native.calls
    assert call.json == {**body, "model": got}
    assert call.header(b"content-length") == [b"%d" % len(call.body)]


async def test_a_body_that_cannot_be_rewritten_is_the_callers_mistake(serve_http, make_native):
    native = make_native(CHAT_ROUTE)
    server = await serve_http(native)
    deep = b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"
    response = await server.client.post(CHAT, content=deep)
    assert response.status_code == 400
    assert "nested too deeply" in response.json()["error"]["message"]


async def test_a_stream_passes_piece_by_piece(serve_http, make_native):
    gate = asyncio.Event()

    class Slow(type(make_native())):  # type: ignore[misc]
        async def native(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await gate.wait()
            await send({"type": "http.response.body", "body": b"data: 2\n\n"})

    slow = Slow(make_native()._settings)
    slow.routes = frozenset({CHAT_ROUTE})
    server = await serve_http(slow)
    async with server.client.stream("POST", CHAT, json=BODY) as response:
        parts = response.aiter_bytes()
        assert await anext(parts) == b"data: 1\n\n"
        gate.set()
        assert [part async for part in parts] == [b"data: 2\n\n"]


async def test_a_route_that_the_server_lacks_is_not_translated_behind_its_back(
    serve_http, make_native
):
    native = make_native(CHAT_ROUTE)
    server = await serve_http(native)
    response = await server.client.post("/v1/embeddings", json={"input": "a"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "The model 'native' does not support embeddings."
    assert native.calls == native.seen == []


async def test_local_routes_are_answered_here_even_if_the_server_has_them(serve_http, make_native):
    native = make_native("GET /v1/models", "GET /version", "GET /health")
    server = await serve_http(native)
    for path in ("/v1/models", "/version", "/health"):
        assert (await server.client.get(path)).status_code == 200
    assert native.calls == []


@pytest.mark.parametrize(
    "route", ["GET /v1/responses/{response_id}", "POST /v1/responses/{response_id}/cancel"]
)
async def test_routes_with_an_id_reach_the_server_without_a_body(
    serve_http, make_native, access_log, route
):
    native = make_native(route)
    server = await serve_http(native)
    method, template = route.split()
    path = template.format(response_id="resp_1")
    assert (await server.client.request(method, path)).status_code == 200
    (call,) = native.calls
    assert (call.scope["method"], call.scope["path"], call.body) == (method, path, b"")
    assert [line["route"] for line in access_log()] == [template]


async def test_native_and_translated_models_stand_side_by_side(serve_http, make_native, make_fake):
    native = make_native(CHAT_ROUTE)
    server = await serve_http(native, make_fake())
    assert (await server.client.post(CHAT, json=BODY)).content == b"{}"
    refused = await server.client.post(CHAT, json={**BODY, "model": "fake"})
    assert refused.json()["error"]["param"] == "tools"
    assert len(native.calls) == 1


@pytest.mark.parametrize("value", [True, 1, "true", [], {}])
async def test_a_response_in_the_background_is_refused_since_nothing_would_count_it(
    serve_http, make_native, value
):
    native = make_native("POST /v1/responses")
    server = await serve_http(native)
    body = {"model": "native", "input": "hi", "background": value}
    response = await server.client.post("/v1/responses", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "background"
    assert not native.calls
    response = await server.client.post("/v1/responses", json={**body, "background": False})
    assert response.status_code == 200
