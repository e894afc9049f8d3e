import re

import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.settings.app import Ingress

ODD = [
    b"a" * 129,
    b"with space",
    b'quote"d',
    b"semi;colon",
    b"back\\slash",
    b"caf\xe9",
    b"<b>",
    b"\xff",
]


@pytest.mark.parametrize("sent", ["a", "x" * 128, "trace-1_2.3:4/5+6=7@8", "0" * 32])
async def test_a_plain_id_is_taken_echoed_once_and_logged(serve_http, access_log, sent):
    server = await serve_http()
    response = await server.client.get("/v1/models", headers={"x-request-id": sent})
    assert response.headers.get_list("x-request-id") == [sent]
    assert [line["request_id"] for line in access_log()] == [sent]


@pytest.mark.parametrize("sent", ODD)
async def test_an_odd_or_long_id_is_replaced(serve_http, access_log, sent):
    server = await serve_http()
    response = await server.client.get("/v1/models", headers={b"x-request-id": sent})
    (echoed,) = response.headers.get_list("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", echoed)
    assert [line["request_id"] for line in access_log()] == [echoed]


async def test_requests_without_an_id_get_different_ones(serve_http):
    server = await serve_http()
    ids = {(await server.client.get("/health")).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/nowhere", None),
        ("DELETE", "/v1/models", None),
        ("POST", "/v1/chat/completions", {"model": "unknown", "messages": []}),
        ("POST", "/v1/chat/completions", {"messages": "wrong"}),
        ("POST", "/v1/completions", {"prompt": "a"}),
        ("POST", "/v1/completions", {"prompt": "a", "stream": True}),
    ],
)
async def test_every_kind_of_answer_carries_the_id_exactly_once(serve_http, method, path, body):
    server = await serve_http()
    headers = {"x-request-id": "mine"}
    response = await server.client.request(method, path, json=body, headers=headers)
    assert response.headers.get_list("x-request-id") == ["mine"]


async def test_the_runtime_is_told_the_id(serve_http):
    server = await serve_http()
    headers = {"x-request-id": "mine"}
    await server.client.post("/v1/completions", json={"prompt": "a"}, headers=headers)
    assert [request.request_id for request in server.runtime.seen] == ["mine"]


async def test_the_id_is_not_added_where_the_server_does_it(make_fake):
    protocol = OpenAIHttp(Catalog([make_fake()]))
    edge = HttpEdge([protocol], Ingress(), echo_request_id=False)
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": "/health", "root_path": "", "headers": []}
    await edge(scope, receive, send)
    assert sent[0]["status"] == 200
    assert b"x-request-id" not in dict(sent[0]["headers"])
