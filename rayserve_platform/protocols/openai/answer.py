"""Answering by translation: one function a verb, each from a checked body to a response."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from rayserve_platform.core.cards import Task
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, PlatformError, internal_error
from rayserve_platform.core.messages import Chunk, Generate
from rayserve_platform.core.stream import Coalescer
from rayserve_platform.edge.exchange import Exchange
from rayserve_platform.protocols.openai import scoring
from rayserve_platform.protocols.openai.render import (
    EventWriter,
    Style,
    embedding_list,
    error_object,
    token_list,
    usage,
)
from rayserve_platform.protocols.openai.schema import (
    Body,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    RerankBody,
    ScoreBody,
    StreamOptions,
    TokenizeBody,
)
from rayserve_platform.protocols.openai.translate import (
    invalid,
    to_chat_generate,
    to_completion_generates,
    to_detokenize,
    to_embed,
    to_tokenize,
)

log = logging.getLogger("rayserve.edge")

Piece = tuple[int, Sequence[Chunk]]
"""Index of a request's first choice, and chunks of that request."""

STREAM_HEAD = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)


def _need(served: Served, task: Task, what: str) -> None:
    if task not in served.card.tasks:
        raise invalid(f"The model '{served.card.id}' does not support {what}.", "model")


def _name(served: Served, body: Body) -> str:
    return body.model or served.card.id


async def chat(exchange: Exchange, served: Served, body: Body) -> None:
    """`POST /v1/chat/completions`."""
    assert isinstance(body, ChatBody)
    _need(served, Task.GENERATE, "chat completions")
    if not served.card.chat:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"The model '{served.card.id}' has no chat template; set one in its configuration.",
            param="messages",
        )
    request = to_chat_generate(
        body, model=served.card.id, adapter=served.adapter, request_id=exchange.request_id
    )
    style = Style(chat=True, model=_name(served, body))
    await _generate(exchange, served, style, [request], body.stream_options)


async def completion(exchange: Exchange, served: Served, body: Body) -> None:
    """`POST /v1/completions`."""
    assert isinstance(body, CompletionBody)
    _need(served, Task.GENERATE, "completions")
    requests = to_completion_generates(
        body, model=served.card.id, adapter=served.adapter, request_id=exchange.request_id
    )
    style = Style(chat=False, model=_name(served, body))
    await _generate(exchange, served, style, requests, body.stream_options)


async def _generate(
    exchange: Exchange,
    served: Served,
    style: Style,
    requests: list[Generate],
    options: StreamOptions | None,
) -> None:
    if requests[0].stream:
        await _streamed(exchange, served, style, requests, options or StreamOptions())
        return
    if options is not None:
        raise invalid("'stream_options' needs 'stream' to be true.", "stream_options")
    if len(requests) == 1:
        answers = [await _whole(served, requests[0])]
    else:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_whole(served, request)) for request in requests]
        answers = [task.result() for task in tasks]
    await exchange.json(200, _gathered(style, requests, answers))


async def _whole(served: Served, request: Generate) -> list[Chunk] | PlatformError:
    """Collect one request's continuations. An error is a value, as a task group would wrap it."""
    try:
        return [c async for chunks in served.runtime.generate(request) for c in chunks]
    except PlatformError as error:
        return error


def _gathered(
    style: Style, requests: list[Generate], answers: Sequence[list[Chunk] | PlatformError]
) -> dict[str, Any]:
    choices: list[dict[str, Any]] = []
    prompt_tokens = generated = 0
    for request, chunks in zip(requests, answers, strict=True):
        if isinstance(chunks, PlatformError):
            raise chunks
        prompt = next((chunk.prompt for chunk in chunks if chunk.prompt is not None), None)
        prompt_tokens += prompt.token_count if prompt is not None else 0
        echoed = prompt if request.details.input_text else None
        for chunk in sorted(chunks, key=lambda chunk: chunk.index):
            generated += chunk.generated_tokens
            choices.append(style.choice(len(choices), chunk, echoed))
    return {**style.envelope(choices), "usage": usage(prompt_tokens, generated)}


async def _streamed(
    exchange: Exchange,
    served: Served,
    style: Style,
    requests: list[Generate],
    options: StreamOptions,
) -> None:
    """Stream all requests; the status waits for the first chunk, so that a refusal can be one."""
    writer = EventWriter(
        style,
        include_usage=options.include_usage,
        continuous=options.continuous_usage_stats,
    )
    pieces = Coalescer[Piece]()
    async with contextlib.aclosing(pieces.batches(_produce(pieces, served, requests))) as source:
        first = await anext(source)
        await exchange.start(200, STREAM_HEAD)
        opening = writer.opening(range(sum(request.n for request in requests)))
        await exchange.write(opening + _rendered(writer, first), more=True)
        try:
            async for batch in source:
                await exchange.write(_rendered(writer, batch), more=True)
            closing = writer.closing()
        except PlatformError as error:
            closing = _in_band(exchange, error)
        except Exception:
            log.exception("request %s failed in its stream", exchange.request_id)
            closing = _in_band(exchange, internal_error())
    await exchange.write(closing, more=False)


def _rendered(writer: EventWriter, batch: Sequence[Piece]) -> bytes:
    return b"".join([writer.events(base, chunks) for base, chunks in batch])


def _in_band(exchange: Exchange, error: PlatformError) -> bytes:
    """Render an error after the first byte: an event, then the end of the stream."""
    exchange.record.code = f"200/{error.code.value}"
    body = orjson.dumps(error_object(error, exchange.request_id))
    return b"data: " + body + b"\n\ndata: [DONE]\n\n"


async def _produce(pieces: Coalescer[Piece], served: Served, requests: list[Generate]) -> None:
    """Run all requests at once and put their chunks as they come.

    What is ready together is written together: a write to a connection costs more than an event.
    """

    async def one(base: int, request: Generate) -> None:
        async with contextlib.aclosing(served.runtime.generate(request)) as stream:
            async for chunks in stream:
                await pieces.put((base, chunks))

    if len(requests) == 1:
        await one(0, requests[0])
        return
    tasks = [asyncio.create_task(one(i * r.n, r)) for i, r in enumerate(requests)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def embeddings(exchange: Exchange, served: Served, body: Body) -> None:
    """`POST /v1/embeddings`."""
    assert isinstance(body, EmbeddingBody)
    _need(served, Task.EMBED, "embeddings")
    request = to_embed(body, model=served.card.id, request_id=exchange.request_id)
    found = await served.runtime.embed(request)
    as_base64 = body.encoding_format == "base64"
    await exchange.json(200, embedding_list(found, _name(served, body), as_base64=as_base64))


async def score(exchange: Exchange, served: Served, body: Body) -> None:
    """`POST /v1/score`."""
    assert isinstance(body, ScoreBody)
    _need(served, Task.SCORE, "scoring")
    await exchange.json(200, await scoring.score(served, body, exchange.request_id))


async def rerank(exchange: Exchange, served: Served, body: Body) -> None:
    """`POST /v1/rerank`."""
    assert isinstance(body, RerankBody)
    _need(served, Task.SCORE, "reranking")
    await exchange.json(200, await scoring.rerank(served, body, exchange.request_id))


async def tokenize(exchange: Exchange, served: Served, body: Body) -> None:
    """`POST /tokenize`."""
    assert isinstance(body, TokenizeBody)
    request = to_tokenize(body, model=served.card.id, request_id=exchange.request_id)
    found = await served.runtime.tokenize(request)
    with_texts = bool(body.return_token_strs)
    await exchange.json(200, token_list(found, served.card, with_texts=with_texts))


async def detokenize(exchange: Exchange, served: Served, body: Body) -> None:
    """`POST /detokenize`."""
    assert isinstance(body, DetokenizeBody)
    request = to_detokenize(body, model=served.card.id, request_id=exchange.request_id)
    await exchange.json(200, {"prompt": await served.runtime.detokenize(request)})


ANSWERS: dict[str, Callable[[Exchange, Served, Body], Awaitable[None]]] = {
    "chat": chat,
    "completion": completion,
    "embeddings": embeddings,
    "score": score,
    "rerank": rerank,
    "tokenize": tokenize,
    "detokenize": detokenize,
}
"""By `Route.verb`."""
