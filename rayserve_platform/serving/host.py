"""The runtime deployment: one engine in a replica, its verbs as methods of a Serve handle."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.runtime import (
    Message,
    ModelRepository,
    NativeHttp,
    NoRepository,
    Receive,
)
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.stream import Coalescer
from rayserve_platform.core.tensors import Infer, Inference, Value
from rayserve_platform.core.usage import USAGE_KEY
from rayserve_platform.edge.metrics import RAY_METRICS
from rayserve_platform.runtimes import load
from rayserve_platform.serving.logs import configure_logging
from rayserve_platform.serving.wire import Headers, HttpCall, HttpPart, as_value, with_values
from rayserve_platform.settings.app import App


class RuntimeHost:
    """Hosts one engine. A replica is ready when its engine is, and as healthy as its engine.

    Streams carry lists of chunks: the first at once, then whatever is ready when the caller comes
    back for more, since each message over a handle costs more than many tokens.
    """

    async def __init__(self, kind: str, settings: App) -> None:  # type: ignore[misc]  # Ray allows it
        configure_logging()
        self._engine = load(kind, settings, RAY_METRICS)
        await self._engine.start()

    async def check_health(self) -> None:
        """Called by Serve; a replica whose engine is dead is replaced."""
        await self._engine.check_health()

    async def __del__(self) -> None:
        """Called by Serve after the last request."""
        await self._engine.stop()

    async def healthy(self) -> PlatformError | None:
        """Return what is wrong with the engine, if anything."""
        return await as_value(self._engine.check_health())

    async def describe(self) -> tuple[ModelCard, ...] | PlatformError:
        """Return the models' cards."""
        return await as_value(self._engine.describe())

    async def embed(self, request: Embed) -> Embeddings | PlatformError:
        """Return embeddings."""
        return await as_value(self._engine.embed(request))

    async def score(self, request: Score) -> Scores | PlatformError:
        """Return scores."""
        return await as_value(self._engine.score(request))

    async def infer(self, request: Infer) -> Inference | PlatformError:
        """Return tensors."""
        return await as_value(self._engine.infer(request))

    async def load_model(
        self, name: str, parameters: Mapping[str, Value | bytes]
    ) -> PlatformError | None:
        """Load a model of the engine's repository."""
        return await as_value(self._repository().load_model(name, parameters))

    async def unload_model(self, name: str) -> PlatformError | None:
        """Stop serving a model of the engine's repository."""
        return await as_value(self._repository().unload_model(name))

    def _repository(self) -> ModelRepository:
        engine = self._engine
        return engine if isinstance(engine, ModelRepository) else NoRepository()

    async def tokenize(self, request: Tokenize) -> Tokens | PlatformError:
        """Return tokens."""
        return await as_value(self._engine.tokenize(request))

    async def detokenize(self, request: Detokenize) -> str | PlatformError:
        """Return text."""
        return await as_value(self._engine.detokenize(request))

    async def generate_whole(self, request: Generate) -> list[Chunk] | PlatformError:
        """Return all continuations, complete."""

        async def collect() -> list[Chunk]:
            return [c async for chunks in self._engine.generate(request) for c in chunks]

        return await as_value(collect())

    async def generate(self, request: Generate) -> AsyncIterator[list[Chunk] | PlatformError]:
        """Stream chunks."""
        stream: Coalescer[Sequence[Chunk]] = Coalescer()

        async def produce() -> None:
            async with aclosing(self._engine.generate(request)) as made:
                async for chunks in made:
                    await stream.put(chunks)

        async with aclosing(with_values(stream.batches(produce()))) as batches:
            async for batch in batches:
                if isinstance(batch, PlatformError):
                    yield batch
                else:
                    yield [chunk for chunks in batch for chunk in chunks]

    async def native(self, call: HttpCall) -> AsyncIterator[HttpPart | PlatformError]:
        """Let the engine's own HTTP server answer, and stream what it sends."""
        assert isinstance(self._engine, NativeHttp)
        stream: Coalescer[Message] = Coalescer()
        answering = self._engine.native(_scope(call), _receive(call), stream.put)
        async with aclosing(with_values(stream.batches(answering))) as batches:
            async for batch in batches:
                yield batch if isinstance(batch, PlatformError) else _fold(batch)


def _scope(call: HttpCall) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "query_string": call.query_string,
        "root_path": "",
        "headers": list(call.headers),
        "client": None,
        "server": None,
    }


def _receive(call: HttpCall) -> Receive:
    """Give the body once; a caller that leaves is told by cancelling, so nothing else comes."""
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": call.body, "more_body": False}

    return receive


def _fold(messages: list[Message]) -> HttpPart:
    """Fold ASGI messages that are ready into one part."""
    status: int | None = None
    headers: Headers = ()
    body: list[bytes] = []
    more = True
    usage: tuple[int, int] | None = None
    for message in messages:
        used = message.get(USAGE_KEY)
        if used is not None:
            before = usage or (0, 0)
            usage = (before[0] + used[0], before[1] + used[1])
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = tuple((bytes(k), bytes(v)) for k, v in message.get("headers", ()))
        else:
            body.append(message.get("body", b""))
            more = message.get("more_body", False)
    return HttpPart(status=status, headers=headers, body=b"".join(body), more=more, usage=usage)
