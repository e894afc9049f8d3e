"""The REST API of KServe v2: routes, bodies, statuses; TensorFlow Serving's is in `tfs`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError, internal_error
from rayserve_platform.core.stream import join
from rayserve_platform.core.tensors import Infer, Inference
from rayserve_platform.edge.exchange import Exchange, Headers, status_of
from rayserve_platform.protocols.kserve import bodies, generation, metadata, schema, tfs
from rayserve_platform.protocols.kserve.answer import (
    Found,
    find,
    for_pictures,
    parts,
    size_of,
    sized,
)
from rayserve_platform.protocols.kserve.paths import Target, parse
from rayserve_platform.protocols.kserve.tensors import invalid, shown
from rayserve_platform.protocols.kserve.texts import infer, version_of
from rayserve_platform.protocols.kserve.translate import (
    HEADER_LENGTH,
    JSON,
    raw_infer,
    render,
    to_infer,
)

log = logging.getLogger("rayserve.edge")

REPOSITORY = frozenset({"index", "load", "unload"})
EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class KServeHttp:
    """The protocol as the edge sees it.

    Args:
        catalog: the models served.
        repository_api: whether clients may load and unload models.
    """

    name = "kserve"
    exempt = probes = frozenset({"/v2/health/live", "/v2/health/ready"})

    def __init__(self, catalog: Catalog, *, repository_api: bool) -> None:
        self._catalog = catalog
        self._repository = metadata.Repository(catalog, enabled=repository_api)
        self._tfs = tfs.Tfs(catalog)
        handlers: tuple[Callable[[Exchange, Target], Awaitable[None]], ...] = (
            self._live,
            self._server_ready,
            self._server,
            self._models,
            self._model,
            self._ready,
            self._infer,
            self._generate,
            self._generate_stream,
            self._index,
            self._load,
            self._unload,
            self._tfs.status,
            self._tfs.metadata,
            self._tfs.predict,
            self._tfs.config,
        )
        self._handlers = {handler.__name__.lstrip("_"): handler for handler in handlers}

    def claims(self, path: str) -> bool:
        """Every path of the two APIs, whatever the method."""
        return parse(path) is not None

    def error(self, error: PlatformError, request_id: str) -> tuple[int, Headers, bytes]:
        """Render an error; what a runtime cannot do is the caller's to change: 400."""
        status = 400 if error.code is Code.UNIMPLEMENTED else status_of(error)
        if isinstance(error, bodies.UnsupportedMedia):
            status = 415
        return status, [(b"content-type", JSON)], orjson.dumps(generation.failure(error))

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        method, target = exchange.scope["method"], parse(exchange.path)
        if target is None:
            raise PlatformError(
                Code.NOT_FOUND, f"Unknown request URL: {method} {shown(exchange.path)}."
            )
        exchange.record.route = target.template
        if ("GET" if method == "HEAD" else method) != target.method:
            content = {"error": f"{method} is not allowed here; use {target.method}."}
            return await exchange.json(405, content, [(b"allow", target.method.encode())])
        if target.verb in REPOSITORY:
            self._repository.check()  # before anything is read
        return await self._handlers[target.verb](exchange, target)

    async def _live(self, exchange: Exchange, target: Target) -> None:
        await exchange.json(200, {"live": True})

    async def _server_ready(self, exchange: Exchange, target: Target) -> None:
        """Answer 200 while what stands behind this ingress can serve."""
        try:
            await self._catalog.check_health()
        except PlatformError:
            return await exchange.json(503, {"ready": False})
        return await exchange.json(200, {"ready": True})

    async def _server(self, exchange: Exchange, target: Target) -> None:
        await exchange.json(200, metadata.server(repository=self._repository.enabled))

    async def _models(self, exchange: Exchange, target: Target) -> None:
        served = await self._catalog.served()
        await exchange.json(200, {"models": [item.card.id for item in served]})

    async def _model(self, exchange: Exchange, target: Target) -> None:
        found = await self._find(exchange, target, anew=True)
        described = metadata.model(found.served, target.model, target.version)
        await exchange.json(200, described)

    async def _ready(self, exchange: Exchange, target: Target) -> None:
        ready = await metadata.is_ready(self._catalog, target.model, target.version)
        await exchange.json(200 if ready else 503, {"name": target.model, "ready": ready})

    async def _find(self, exchange: Exchange, target: Target, *, anew: bool = False) -> Found:
        return await find(self._catalog, exchange.record, target.model, target.version, anew=anew)

    async def _infer(self, exchange: Exchange, target: Target) -> None:
        body = memoryview(await bodies.typed(exchange))
        declared = exchange.headers.get(HEADER_LENGTH, b"")
        length = len(body) if declared == b"" else bodies.header_length(declared, len(body))
        if not length and declared:
            return await self._infer_raw(exchange, target, body)
        asked = await sized(length, schema.read, body[:length])
        found = await self._find(exchange, target)
        request = await _decoded(asked, body, length, found, exchange.request_id)
        inference = await infer(found.served, request)
        return await _answer(
            exchange,
            inference,
            name=target.model,
            request_id=asked.id,
            wanted=asked.outputs,
            binary=asked.binary,
        )

    async def _infer_raw(self, exchange: Exchange, target: Target, body: memoryview) -> None:
        """Answer a body that is nothing but data in the same way: with nothing but binary data."""
        found = await self._find(exchange, target, anew=True)
        version = version_of(found.served.card, target.version)
        card, request_id = found.served.card, exchange.request_id
        request = await asyncio.to_thread(
            raw_infer, body, card, version, asked=target.version, request_id=request_id
        )
        inference = await infer(found.served, request)
        await _answer(exchange, inference, name=target.model, request_id="", wanted={}, binary=True)

    async def _generate(self, exchange: Exchange, target: Target) -> None:
        found, asked, echo = await self._asked(exchange, target, stream=False)
        async with aclosing(parts(found, asked)) as chunks:
            whole = join([chunk async for listed in chunks for chunk in listed])
        details = asked.details.generated_tokens
        content = generation.answer(whole, name=target.model, request_id=echo, details=details)
        await exchange.json(200, content)

    async def _asked(self, exchange: Exchange, target: Target, *, stream: bool) -> Any:
        body = await bodies.typed(exchange)
        document = await sized(len(body), schema.load, body)
        text, parameters = generation.read(document, stream=stream)
        echo = schema.read_id(document)
        found = await self._find(exchange, target)
        version_of(found.served.card, target.version)
        if not found.generates:
            raise PlatformError(
                Code.UNIMPLEMENTED,
                f"The model '{found.served.card.id}' does not generate text.",
                param="model",
            )
        asked = generation.to_generate(
            found.served, text, parameters, stream=stream, request_id=exchange.request_id
        )
        return found, asked, echo

    async def _generate_stream(self, exchange: Exchange, target: Target) -> None:
        """Stream server-sent events. What fails before the first is answered as a plain error."""
        found, asked, echo = await self._asked(exchange, target, stream=True)
        details = asked.details.generated_tokens
        try:
            async with aclosing(parts(found, asked)) as chunks:
                async for listed in chunks:
                    content = generation.event(
                        listed, name=target.model, request_id=echo, details=details
                    )
                    if not exchange.started:
                        await exchange.start(200, EVENTS)
                    await _event(exchange, content)
        except Exception as error:
            if not exchange.started:
                raise
            if not isinstance(error, PlatformError):
                log.exception("request %s failed", exchange.request_id)
                error = internal_error()
            exchange.record.code = f"200/{error.code.value}"
            await _event(exchange, generation.failure(error))
        if not exchange.started:
            await exchange.start(200, EVENTS)
        await exchange.write(b"", more=False)

    async def _index(self, exchange: Exchange, target: Target) -> None:
        body = await bodies.typed(exchange)
        document = await sized(len(body), schema.load, body) if body else {}
        ready = document.get("ready", False)
        if type(ready) is not bool:
            raise invalid("'ready' must be true or false.", "ready")
        await exchange.json(200, await self._repository.index(ready=ready))

    async def _load(self, exchange: Exchange, target: Target) -> None:
        body = await bodies.typed(exchange)
        given = (await sized(len(body), schema.load, body)).get("parameters") if body else None
        parameters = await sized(len(body), metadata.with_files, given)
        await self._repository.load(target.model, parameters)
        await exchange.bytes(200, b"", JSON)

    async def _unload(self, exchange: Exchange, target: Target) -> None:
        """Unload; `unload_dependents` means nothing here, as no model depends on another."""
        await bodies.typed(exchange)
        await self._repository.unload(target.model)
        await exchange.bytes(200, b"", JSON)


async def _decoded(
    asked: schema.Body, body: memoryview, length: int, found: Found, request_id: str
) -> Infer:
    """Decode the inputs, of which `body` has JSON up to `length`; pictures in a thread."""
    card, rest = found.served.card, body[length:]
    call = partial(to_infer, asked, rest, card, found.version, request_id=request_id)
    specs = for_pictures(found, asked.inputs)
    if specs is not None:
        return await asyncio.to_thread(call, spec=specs)
    return await sized(len(body), call)


async def _answer(
    exchange: Exchange,
    inference: Inference,
    *,
    name: str,
    request_id: str,
    wanted: dict[str, bool],
    binary: bool,
) -> None:
    """Send an inference; the arguments are those of `render`."""
    headers, body = await sized(
        size_of(inference),
        render,
        inference,
        name=name,
        request_id=request_id,
        wanted=wanted,
        binary=binary,
    )
    coding = bodies.wanted(exchange)
    if coding is not None:
        body = await bodies.pack(coding, body)
        headers = [*headers, (b"content-encoding", coding.encode())]
    await exchange.start(200, [*headers, (b"content-length", b"%d" % len(body))])
    await exchange.write(body, more=False)


async def _event(exchange: Exchange, content: dict[str, Any]) -> None:
    await exchange.write(b"data: %b\n\n" % orjson.dumps(content), more=True)
