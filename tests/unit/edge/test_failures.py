import asyncio
import logging
from dataclasses import replace

import httpx
import pytest

from rayserve_platform.core import health
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.observe import REQUESTS
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.settings.app import Ingress

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
SECRET = "/srv/models/private 10.0.0.7 pid=4242"


class Broken(FakeRuntime):
    """Fails in a way that nobody foresaw."""

    def generate(self, request):
        raise RuntimeError(SECRET)

    async def embed(self, request):
        raise OSError(SECRET)

    async def tokenize(self, request):
        raise KeyError(SECRET)


@pytest.fixture
def broken(make_fake):
    return Broken(make_fake()._settings)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": ["a", "b"], "stream": True}),
        ("/v1/embeddings", {"input": "a"}),
        ("/tokenize", {"prompt": "a"}),
    ],
)
async def test_an_unknown_exception_is_an_internal_error_and_nothing_else(
    serve_http, broken, caplog, path, body
):
    server = await serve_http(broken)
    response = await server.client.post(path, json=body, headers={"x-request-id": "look-me-up"})
    assert response.status_code == 500
    assert response.json() == {
        "error": {
            "message": "internal error (request id look-me-up)",
            "type": "internal_server_error",
            "param": None,
            "code": 500,
        }
    }
    assert not any(word in response.text for word in SECRET.split())
    logged = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert any("look-me-up" in r.getMessage() and r.exc_info for r in logged)


async def test_a_dead_engine_is_unhealthy(serve_http):
    server = await serve_http()
    assert (await server.client.get("/health")).status_code == 200
    server.runtime.healthy = False
    response = await server.client.get("/health")
    assert response.status_code == 503
    assert response.json()["error"]["type"] == "service_unavailable_error"


async def test_an_ingress_before_several_models_is_well_while_one_is_not(serve_http, make_fake):
    one, two = make_fake(id="one"), make_fake(id="two")
    one.healthy = False
    server = await serve_http(one, two)
    assert (await server.client.get("/health")).status_code == 200


async def test_a_health_check_of_an_unknown_kind_of_failure_says_nothing_of_it(
    serve_http, make_fake
):
    class Odd(FakeRuntime):
        async def check_health(self):
            raise RuntimeError(SECRET)

    server = await serve_http(Odd(make_fake()._settings))
    response = await server.client.get("/health")
    assert response.status_code == 500
    assert "private" not in response.text


async def test_an_engine_that_does_not_answer_its_health_check_is_unavailable(
    serve_http, make_fake, monkeypatch
):
    class Stuck(FakeRuntime):
        async def check_health(self):
            await asyncio.Event().wait()

    monkeypatch.setattr(health, "TIMEOUT_S", 0.01)
    server = await serve_http(Stuck(make_fake()._settings))
    response = await server.client.get("/health")
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "The engine does not answer."


async def test_a_websocket_is_closed_as_a_policy_violation(make_fake):
    edge = HttpEdge([OpenAIHttp(Catalog([make_fake()]))], Ingress())
    sent: list = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    await edge({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


def counted(code: str) -> float:
    labels = ("openai", "/v1/chat/completions", "fake", code)
    return float(REQUESTS.labels(*labels)._value.get())


async def test_a_client_that_leaves_before_the_answer_is_499_and_aborts_the_runtime(
    serve_http, make_fake, access_log, eventually
):
    server = await serve_http(make_fake(first_token_s=600))
    before = counted("499")
    asking = asyncio.create_task(server.client.post("/v1/chat/completions", json=CHAT))
    await eventually(lambda: server.runtime.running == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: server.runtime.running == 0)
    await eventually(lambda: len(access_log()) == 1)
    (line,) = access_log()
    assert (line["code"], line["client_gone"]) == (499, True)
    assert counted("499") == before + 1


@pytest.mark.parametrize("prompts", [["one"], ["one", "two", "three"]])
async def test_a_client_that_leaves_a_stream_aborts_the_runtime(
    serve_http, make_fake, access_log, eventually, prompts
):
    server = await serve_http(make_fake(token_s=0.01, max_model_len=10**6))
    body = {"prompt": prompts, "stream": True, "max_tokens": 10**5, "ignore_eos": True}
    async with server.client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        await anext(response.aiter_bytes())
        assert server.runtime.running == len(prompts)
    await eventually(lambda: server.runtime.running == 0)
    await eventually(lambda: len(access_log()) == 1)
    (line,) = access_log()
    assert (line["code"], line["client_gone"]) == (200, True)


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_499(
    serve_http, access_log, eventually
):
    server = await serve_http()
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(server.url).port)
    writer.write(
        b'POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{"prompt": "'
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    del reader
    await eventually(lambda: len(access_log()) == 1)
    (line,) = access_log()
    assert (line["code"], line["client_gone"]) == (499, True)
    assert server.runtime.seen == []


async def test_a_place_is_free_again_after_a_client_has_left(serve_http, make_fake, eventually):
    limits = {"max_concurrent_requests": 1}
    server = await serve_http(make_fake(first_token_s=600), ingress={"limits": limits})
    for _ in range(3):
        asking = asyncio.create_task(server.client.post("/v1/chat/completions", json=CHAT))
        await eventually(lambda: server.runtime.running == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: server.runtime.running == 0)
    assert (await server.client.get("/v1/models")).status_code == 200


async def test_a_protocol_that_fails_after_its_first_byte_ends_the_connection(
    serve_http, make_fake, caplog
):
    class Cut(FakeRuntime):
        async def native(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise PlatformError(Code.UNAVAILABLE, SECRET)

        async def describe(self):
            (card,) = await super().describe()
            return (replace(card, native=frozenset({"POST /v1/messages"})),)

    server = await serve_http(Cut(make_fake()._settings))
    with pytest.raises(httpx.RemoteProtocolError):
        await server.client.post("/v1/messages", json={"messages": []})
    assert "failed after its first byte" in caplog.text
