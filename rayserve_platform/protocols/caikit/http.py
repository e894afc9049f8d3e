"""Caikit's REST API: routes, bodies, statuses."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel, ValidationError

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.usage import admit
from rayserve_platform.edge.exchange import Exchange, status_of
from rayserve_platform.protocols.caikit import documents, events, form, info, render
from rayserve_platform.protocols.caikit.answer import Asked, Unreached, answer, find, stream
from rayserve_platform.protocols.caikit.generation import ValueFault
from rayserve_platform.protocols.caikit.schema import parse
from rayserve_platform.protocols.caikit.tasks import STREAMED_TEXT_GENERATION, TASKS, CaikitTask
from rayserve_platform.protocols.caikit.translate import arguments_of, invalid

JSON = b"application/json"


class CaikitHttp:
    """The protocol as the edge sees it.

    Args:
        catalog: the models served.
        max_new_tokens: the most that a request may ask for.
        docs: whether `/docs` and `/openapi.json` are served.
        ping_s: after so many seconds without an event a stream gets a comment.
    """

    name = "caikit"
    exempt = probes = frozenset({"/health"})

    def __init__(
        self,
        catalog: Catalog,
        *,
        max_new_tokens: int,
        docs: bool = True,
        ping_s: float = events.PING_S,
    ) -> None:
        self._catalog = catalog
        self._max_new_tokens = max_new_tokens
        self._ping_s = ping_s
        self._routes: dict[str, tuple[str, Callable[[Exchange], Awaitable[None]]]] = {
            f"/api/v1/task/{task.name}": ("POST", partial(self._task, task)) for task in TASKS
        }
        self._routes |= {
            "/health": ("GET", self._health),
            "/info/models": ("GET", self._models),
            "/info/version": ("GET", self._version),
            "/info/runtime": ("GET", self._version),
        }
        if docs:
            self._routes |= {
                "/docs": ("GET", self._docs),
                "/openapi.json": ("GET", self._openapi),
            }

    def claims(self, path: str) -> bool:
        """Every path that has a route, whatever the method, also with a slash at its end."""
        return path in self._routes or path.rstrip("/") in self._routes

    def error(
        self, error: PlatformError, request_id: str
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Render an error of the runtime: without a content type, as the original does.

        What a runtime cannot do is the caller's to change: 400.
        """
        status = _status(error)
        return status, [], render.dumps(render.failure(error.message, status, request_id))

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.path
        if path not in self._routes:
            return await self._no_route(exchange, path)
        exchange.record.route = path
        method, handler = self._routes[path]
        if exchange.scope["method"] != method:
            content = {"detail": "Method Not Allowed"}
            return await exchange.json(405, content, [(b"allow", method.encode())])
        return await handler(exchange)

    async def _no_route(self, exchange: Exchange, path: str) -> None:
        """Send a path that only has a slash too many to where it belongs."""
        if path.rstrip("/") not in self._routes:
            return await exchange.json(404, {"detail": "Not Found"})
        whole: str = exchange.scope["path"]
        query: bytes = exchange.scope.get("query_string", b"")
        location = whole.rstrip("/").encode() + (b"?" + query if query else b"")
        headers = [(b"location", location), (b"content-length", b"0")]
        await exchange.start(307, headers)
        return await exchange.write(b"", more=False)

    async def _task(self, task: CaikitTask, exchange: Exchange) -> None:
        kind = exchange.headers.get(b"content-type", b"")
        if kind == JSON:
            text = _text(await exchange.body())
        elif kind.startswith(b"multipart/form-data"):
            text = await form.to_json(task, kind, await exchange.body())
        else:
            shown = kind.decode("latin-1") or "none given"
            return await exchange.json(415, {"detail": f"Unsupported media type: {shown}."})
        try:
            body = parse(task, text)
        except ValidationError as error:
            refusal = render.unprocessable(error, exchange.request_id)
            return await exchange.bytes(422, refusal, JSON)
        if task is STREAMED_TEXT_GENERATION:
            await self._admit(body)
            chunks = self._chunks(task, exchange, body, len(text))
            failure = partial(_in_stream, exchange)
            return await events.send(exchange, chunks, failure, self._ping_s)
        found = await answer(await self._asked(task, exchange, body, len(text)))
        return await exchange.bytes(200, render.body(found), JSON)

    async def _asked(
        self, task: CaikitTask, exchange: Exchange, body: BaseModel, size_bytes: int
    ) -> Asked:
        """Find the model that a checked body names."""
        name: str | None = body.__dict__["model_id"]
        if name is None:
            raise invalid("Please provide model_id in payload")
        served = await find(self._catalog, name)
        exchange.record.model = served.card.id
        return Asked(
            task=task,
            served=served,
            arguments=arguments_of(task, body),
            max_new_tokens=self._max_new_tokens,
            size_bytes=size_bytes,
            request_id=exchange.request_id,
        )

    async def _admit(self, body: BaseModel) -> None:
        """Ask for a share while a refusal can still be a status; all else is told in the stream."""
        try:
            served = await find(self._catalog, body.__dict__["model_id"])
        except PlatformError:
            return
        await admit(served.target)

    async def _chunks(
        self, task: CaikitTask, exchange: Exchange, body: BaseModel, size_bytes: int
    ) -> events.Chunks:
        """Generate; that the model is not found comes in the stream too."""
        asked = await self._asked(task, exchange, body, size_bytes)
        async with aclosing(stream(asked)) as source:
            async for chunks in source:
                yield chunks

    async def _health(self, exchange: Exchange) -> None:
        """Answer OK while what stands behind this ingress can serve."""
        await self._catalog.check_health()
        await exchange.bytes(200, b"OK", b"text/plain; charset=utf-8")

    async def _models(self, exchange: Exchange) -> None:
        query = parse_qs(
            exchange.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True
        )
        found = await info.models(self._catalog, query.get("model_ids", []))
        await exchange.json(200, {"models": found})

    async def _version(self, exchange: Exchange) -> None:
        await exchange.json(200, info.runtime())

    async def _docs(self, exchange: Exchange) -> None:
        await exchange.bytes(200, documents.page(), b"text/html; charset=utf-8")

    async def _openapi(self, exchange: Exchange) -> None:
        await exchange.bytes(200, orjson.dumps(documents.openapi()), JSON)


def _status(error: PlatformError) -> int:
    if isinstance(error, Unreached):
        return 501
    return 400 if error.code is Code.UNIMPLEMENTED else status_of(error)


def _in_stream(exchange: Exchange, error: PlatformError) -> dict[str, Any]:
    """Return the content of an error's event."""
    status = 500 if isinstance(error, Unreached) else _status(error)
    fault = isinstance(error, ValueFault)
    message = f"ValueError({error.message!r})" if fault else error.message
    return render.failure(message, status, exchange.request_id)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise invalid("The request body is not valid UTF-8.") from None
