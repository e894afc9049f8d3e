"""The OpenAI API over HTTP: allow-list, model resolution, then native code or translation.

A runtime with an OpenAI server of its own (`ModelCard.native`) answers the body itself, so every
feature of that server works; for the others the ingress translates to the vocabulary.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs

import orjson

import rayserve_platform
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.runtime import NativeHttp
from rayserve_platform.core.usage import admit
from rayserve_platform.edge.exchange import Exchange, status_of
from rayserve_platform.edge.fetch import fetch
from rayserve_platform.edge.json import check_once
from rayserve_platform.edge.media import Fetcher
from rayserve_platform.protocols.openai import answer, documents, form, guard, native, stored
from rayserve_platform.protocols.openai.media import fill
from rayserve_platform.protocols.openai.render import error_object, model_objects
from rayserve_platform.protocols.openai.routes import Route, match
from rayserve_platform.protocols.openai.translate import invalid, parse

UNSALTED = frozenset(
    {
        "/tokenize",
        "/detokenize",
        "/v1/messages/count_tokens",
        "/v1/responses/{response_id}/cancel",
    }
)
"""Routes on which no model reads a prompt."""
LARGE_BYTES = 2**20
"""A body that is written anew in a thread: it takes milliseconds."""


class OpenAIHttp:
    """The protocol as the edge sees it.

    Args:
        catalog: the models served.
        docs: whether `/docs` and `/openapi.json` are served.
        caps: what one request may ask for.
        fetcher: fetches the files that a request names, of the hosts that `caps` allows.
    """

    name = "openai"
    exempt = probes = frozenset({"/health"})

    def __init__(
        self,
        catalog: Catalog,
        *,
        docs: bool = True,
        caps: guard.Caps | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._catalog = catalog
        self._has_docs = docs
        self._caps = caps or guard.Caps()
        self._fetcher = fetcher or Fetcher()

    def claims(self, path: str) -> bool:
        """Every path that some route of the allow-list has, whatever the method."""
        route, _, allowed = match("", path)
        return route is not None or bool(allowed)

    def error(
        self, error: PlatformError, request_id: str
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Render an error.

        What a runtime cannot do is the caller's to change: 400, not 501, which stock clients retry.
        """
        status = 400 if error.code is Code.UNIMPLEMENTED else status_of(error)
        body = orjson.dumps(error_object(error, request_id))
        return status, [(b"content-type", b"application/json")], body

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        method, path = exchange.scope["method"], exchange.path
        route, parameters, allowed = match(method, path)
        if route is None:
            await self._no_route(exchange, method, path, allowed)
            return
        exchange.record.route = route.template
        if route.local:
            local: Callable[..., Any] = getattr(self, f"_{route.verb}")
            await local(exchange, **parameters)
        else:
            await self._serve(exchange, route, parameters.get("response_id"))

    async def _no_route(
        self, exchange: Exchange, method: str, path: str, allowed: tuple[str, ...]
    ) -> None:
        if not allowed:
            raise PlatformError(Code.NOT_FOUND, f"Unknown request URL: {method} {path}.")
        error = invalid(f"{method} is not allowed on {path}; use {', '.join(allowed)}.")
        body = error_object(error, exchange.request_id)
        await exchange.json(405, body, [(b"allow", ", ".join(allowed).encode())])

    async def _serve(self, exchange: Exchange, route: Route, response_id: str | None) -> None:
        """Find the model that a body names, and let its runtime answer."""
        body = await exchange.body()
        content = _decode(exchange, body)
        in_form = await _named_in_form(exchange, body)
        name = content.get("model", _queried_model(exchange, in_form))
        if name is not None and not isinstance(name, str):
            raise invalid("'model' must be a string.", "model")
        elsewhere = guard.check(content, self._caps)
        served = await self._catalog.resolve(name)
        exchange.record.model = served.adapter or served.card.id
        _check_attended(route, content)
        if _is_form(exchange) and in_form is None:
            await self._check_adapters(served)
        if route.key in served.card.native:
            own = _own(served, content, _changes(exchange, route, served, content, response_id))
            if elsewhere:
                await admit(served.target)
                await fill(elsewhere, self._fetcher)
            if elsewhere or own is not content:
                is_large = bool(elsewhere) or len(body) > LARGE_BYTES
                body = await asyncio.to_thread(_dumps, own) if is_large else _dumps(own)
            await native.forward(
                exchange, cast("NativeHttp", served.runtime), body, is_json=bool(content)
            )
        elif route.verb and not served.card.native:
            await answer.ANSWERS[route.verb](exchange, served, parse(route.verb, content))
        else:
            raise invalid(
                f"The model '{name or served.card.id}' does not support {route.what}.", "model"
            )

    async def _check_adapters(self, served: Served) -> None:
        """Refuse a form that names nothing, whose caller may not use all that it may be for."""
        for name in (None, *(adapter.name for adapter in served.card.adapters)):
            if await self._catalog.adapted(served, name) is None:
                raise invalid(
                    "A form may name this model and any adapter of it, and you may not call all of"
                    " them.",
                    "model",
                )

    async def _health(self, exchange: Exchange) -> None:
        """Answer 200 while what stands behind this ingress can serve."""
        await self._catalog.check_health()
        await exchange.bytes(200, b"", b"text/plain")

    async def _version(self, exchange: Exchange) -> None:
        """`version` is the engine's where there is one engine, as vLLM's server answers."""
        served = await self._catalog.served()
        ours = rayserve_platform.__version__
        engine = served[0].card.engine_version if len(served) == 1 else ""
        await exchange.json(200, {"version": engine or ours, "rayserve_platform": ours})

    async def _models(self, exchange: Exchange) -> None:
        reached = await self._catalog.served()
        data = [entry for served in reached for entry in model_objects(served.card)]
        await exchange.json(200, {"object": "list", "data": data})

    async def _model(self, exchange: Exchange, model: str) -> None:
        served = await self._catalog.resolve(model)
        card = await self._catalog.card_of(served)
        entries = {entry["id"]: entry for entry in model_objects(card)}
        await exchange.json(200, entries.get(model) or {**entries[card.id], "id": model})

    async def _docs(self, exchange: Exchange) -> None:
        self._need_docs()
        await exchange.bytes(200, documents.page(), b"text/html; charset=utf-8")

    async def _openapi(self, exchange: Exchange) -> None:
        self._need_docs()
        described: list[dict[str, Any]] = []
        for served in await self._catalog.served():
            if served.card.native:
                raw = await fetch(cast("NativeHttp", served.runtime), "/openapi.json")
                described.append(orjson.loads(raw))
        await exchange.json(200, documents.openapi(described))

    def _need_docs(self) -> None:
        if not self._has_docs:
            raise PlatformError(Code.NOT_FOUND, "The documentation is switched off.")


async def _named_in_form(exchange: Exchange, body: bytes) -> str | None:
    """Return the model that a form names: what the runtime's own server will read."""
    if exchange.scope["method"] != "POST" or not _is_form(exchange):
        return None
    return await form.model_of(exchange.headers[b"content-type"], body)


def _queried_model(exchange: Exchange, in_form: str | None) -> str | None:
    """Return `?model=`, how a request without a JSON body may name a model, or the form's own."""
    query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
    names = {*query.get("model", ()), *(() if in_form is None else (in_form,))}
    if len(names) > 1:
        raise invalid("The request names several models; name one.", "model")
    return names.pop() if names else None


def _check_attended(route: Route, content: dict[str, Any]) -> None:
    """Refuse a response in the background.

    It would go on after its request: beyond what its caller may have running, and uncounted.
    """
    if route.key == "POST /v1/responses" and content.get("background") not in (None, False):
        raise invalid("'background' is not supported: the answer must be waited for.", "background")


def _is_form(exchange: Exchange) -> bool:
    """Say whether a body is a form; a runtime may read another one of several content types."""
    if sum(name == b"content-type" for name, _ in exchange.scope["headers"]) > 1:
        raise invalid("The header 'Content-Type' must stand there once.")
    kind = exchange.headers.get(b"content-type", b"").lower()
    return kind.startswith(b"multipart/")


def _decode(exchange: Exchange, body: bytes) -> dict[str, Any]:
    """Decode a JSON body. GET requests and uploads (multipart forms) have none."""
    if exchange.scope["method"] != "POST" or _is_form(exchange):
        return {}
    if not body and exchange.path.endswith("/cancel"):
        return {}
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The request body is not valid JSON: {error}.", "body") from None
    if not isinstance(content, dict):
        raise invalid("The request body must be a JSON object.", "body")
    check_once(body, ("model",))
    return content


def _changes(
    exchange: Exchange,
    route: Route,
    served: Served,
    content: dict[str, Any],
    response_id: str | None,
) -> dict[str, Any]:
    """Return what a body says otherwise for its caller's sake: whose a response and a cache are."""
    changes: dict[str, Any] = {}
    if exchange.session is not None:
        changes = stored.bound(route, content, response_id, exchange.session.principal)
    if served.salt is not None and route.template not in UNSALTED:
        changes["cache_salt"] = served.salt.mixed(_own_salt(content))
    return changes


def _own(served: Served, content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Let a native server read the name that was decided upon, and that it knows.

    A gateway may call a model otherwise, and the body need not name what the query does.
    """
    card, named = served.card, content.get("model")
    is_alias = served.adapter is None and named in card.aliases
    own = named if is_alias else served.adapter or card.id
    if not content or (named == own and not changes):
        return content
    return {**content, **changes, "model": own}


def _own_salt(content: dict[str, Any]) -> str | None:
    own = content.get("cache_salt")
    if own is not None and not (isinstance(own, str) and own):
        raise invalid("'cache_salt' must be a string that is not empty.", "cache_salt")
    return own


def _dumps(content: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError:
        # It has been decoded from JSON, so depth is all that can be wrong: 254 levels are written.
        raise invalid("The request body is nested too deeply.", "body") from None
