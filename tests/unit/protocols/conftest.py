"""A runtime with an HTTP server of its own that answers what a test has scripted."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.runtime import Receive, Scope, Send
from rayserve_platform.runtimes.fake import FakeRuntime

JSON = [(b"content-type", b"application/json")]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request as the runtime's own server got it."""

    scope: Scope
    body: bytes

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = self.scope["headers"]
        return found

    def header(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedNative(FakeRuntime):
    """Answers each request with the parts of `answer`, and keeps the requests in `calls`."""

    routes: frozenset[str] = frozenset()
    status = 200
    headers: Any = JSON
    answer: tuple[bytes, ...] = (b"{}",)
    adapters: tuple[Any, ...] = ()
    silent = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.calls: list[Call] = []

    async def describe(self) -> tuple[ModelCard, ...]:
        (card,) = await super().describe()
        return (replace(card, native=self.routes, adapters=self.adapters, runtime="native"),)

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        self.calls.append(Call(scope=scope, body=message["body"]))
        if self.silent:
            return
        head = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(head)
        for part in self.answer[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": self.answer[-1], "more_body": False})


@pytest.fixture
def make_native(make_fake) -> Callable[..., ScriptedNative]:
    """Makes a scripted native runtime that has `routes`; other names are its attributes."""

    def make(*routes: str, id: str = "native", aliases: tuple[str, ...] = (), **script: Any):  # noqa: A002
        runtime = ScriptedNative(make_fake(id=id, aliases=aliases)._settings)
        runtime.routes = frozenset(routes)
        for name, value in script.items():
            assert hasattr(ScriptedNative, name), name
            setattr(runtime, name, value)
        return runtime

    return make


@pytest.fixture
def events() -> Callable[[str], list[Any]]:
    """Splits server-sent events into their decoded data; `[DONE]` stays text.

    Source: WHATWG HTML, "Server-sent events": events end with an empty line.
    """

    def split(text: str) -> list[Any]:
        assert text.endswith("\n\n")
        found: list[Any] = []
        for event in text.removesuffix("\n\n").split("\n\n"):
            assert event.startswith("data: ")
            assert "\n" not in event
            data = event.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
        return found

    return split
