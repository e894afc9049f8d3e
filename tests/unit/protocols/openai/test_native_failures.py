"""Failures of a runtime's own HTTP server, and clients that leave it."""

import asyncio

import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.settings.app import Ingress

CHAT = "/v1/chat/completions"
CHAT_ROUTE = f"POST {CHAT}"
BODY = {"model": "native", "messages": [{"role": "user", "content": "hi"}], "tools": [{"x": 1}]}
SECRET = "CUDA error at /srv/vllm/worker.py pid 4242 host 10.0.0.7"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 429])
async def test_a_4xx_passes_unchanged(serve_http, make_native, status):
    said = b'{"error": {"message": "max_tokens is 5 over", "code": 400}}'
    server = await serve_http(make_native(CHAT_ROUTE, status=status, answer=(said,)))
    response = await server.client.post(CHAT, json=BODY)
    assert response.status_code == status
    assert response.content == said
    assert ("retry-after" in response.headers) == (status == 429)


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        (500, (500, "internal_server_error")),
        (502, (500, "internal_server_error")),
        (599, (500, "internal_server_error")),
        (501, (400, "unsupported_error")),
        (503, (503, "service_unavailable_error")),
        (504, (504, "timeout_error")),
    ],
)
async def test_what_a_server_says_of_its_own_failure_never_reaches_the_client(
    serve_http, make_native, caplog, status, seen
):
    native = make_native(
        CHAT_ROUTE, status=status, answer=(SECRET[:9].encode(), SECRET[9:].encode())
    )
    native.headers = [(b"x-worker", SECRET.encode())]
    server = await serve_http(native)
    response = await server.client.post(CHAT, json=BODY, headers={"x-request-id": "look"})
    assert (response.status_code, response.json()["error"]["type"]) == seen
    assert response.headers["x-request-id"] == "look"
    assert "x-worker" not in response.headers
    assert not any(word in response.text for word in ("CUDA", "/srv", "4242", "10.0.0.7"))
    assert ("look" in response.text) == (seen[0] == 500)
    assert "request look: the engine answered" in caplog.text
    assert SECRET in caplog.text


async def test_a_server_that_says_nothing_because_the_client_left_is_499(make_native, access_log):
    catalog = Catalog([make_native(CHAT_ROUTE, silent=True)])
    edge = HttpEdge([OpenAIHttp(catalog)], Ingress())
    messages = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}]
    sent: list = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    await edge(scope, receive, send)
    assert sent == []
    assert [(line["code"], line["client_gone"]) for line in access_log()] == [(499, True)]


async def test_a_server_that_listens_on_hears_when_the_client_leaves(make_native):
    heard: list = []

    class Listening(type(make_native())):  # type: ignore[misc]
        async def native(self, scope, receive, send):
            heard.extend([await receive(), await receive()])

    listening = Listening(make_native()._settings)
    listening.routes = frozenset({CHAT_ROUTE})
    edge = HttpEdge([OpenAIHttp(Catalog([listening]))], Ingress())
    messages = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        raise AssertionError(message)

    await edge({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert [message["type"] for message in heard] == ["http.request", "http.disconnect"]


async def test_a_client_that_leaves_cancels_the_runtimes_own_server(
    serve_http, make_native, eventually
):
    state = []

    class Stuck(type(make_native())):  # type: ignore[misc]
        async def native(self, scope, receive, send):
            state.append("began")
            try:
                await asyncio.Event().wait()
            finally:
                state.append("ended")

    stuck = Stuck(make_native()._settings)
    stuck.routes = frozenset({CHAT_ROUTE})
    server = await serve_http(stuck)
    asking = asyncio.create_task(server.client.post(CHAT, json=BODY))
    await eventually(lambda: state == ["began"])
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: state == ["began", "ended"])
