"""A tiny OpenAI-compatible server on a real socket, with models that behave in different ways."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

WORDS = ("Hello", " there", ",", " world")
USAGE = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}


class OpenAIServer:
    """Answers by the model's name: `good`, `no-usage`, `fails`, `hangs`, `cut`, `error-inside`,
    `drops`. Keeps the bodies it got."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.release = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.generate)
        app.router.add_post("/v1/completions", self.generate)
        app.router.add_post("/raw", self.raw)
        return app

    async def models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer wrong":
            return web.json_response({"error": {"message": "no"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": "good"}, {"id": "other"}]})

    async def raw(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("stream"):
            return web.json_response(body)
        response = await self._open(request)
        for _ in range(5):
            await response.write(b'data: {"any": "thing"}\n\n')
        return response

    async def generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if body["model"] == "fails":
            return web.json_response({"error": {"message": "busy"}}, status=503)
        if body["model"] == "hangs":
            await self.release.wait()
        if not body["stream"]:
            choice = {"index": 0, "message": {"content": "".join(WORDS)}}
            return web.json_response({"choices": [choice], "usage": USAGE})
        return await self._stream(request, body)

    async def _stream(self, request: web.Request, body: dict) -> web.StreamResponse:
        chat = request.path.endswith("/chat/completions")
        response = await self._open(request)
        if chat:
            await self._send(response, {"choices": [{"delta": {"role": "assistant"}}]})
        for word in WORDS:
            choice = {"delta": {"content": word}} if chat else {"text": word}
            await self._send(response, {"choices": [choice]})
            if body["model"] == "drops":
                assert request.transport is not None
                request.transport.abort()
        if body["model"] == "cut":
            return response
        if body["model"] == "error-inside":
            await self._send(response, {"error": {"message": "out of memory"}})
        elif body["model"] != "no-usage":
            await self._send(response, {"choices": [], "usage": USAGE})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _open(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        return response

    async def _send(self, response: web.StreamResponse, event: dict) -> None:
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@pytest.fixture
def new_server() -> type[OpenAIServer]:
    """For tests that run the server themselves."""
    return OpenAIServer


@pytest.fixture
async def openai() -> AsyncIterator[tuple[OpenAIServer, str]]:
    """The server and its URL."""
    behaviour = OpenAIServer()
    server = TestServer(behaviour.app())
    await server.start_server()
    yield behaviour, str(server.make_url("/")).rstrip("/")
    behaviour.release.set()
    await server.close()
