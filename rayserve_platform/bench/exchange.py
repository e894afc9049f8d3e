"""One request and its answer over an aiohttp session, timed; failures become an error kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

import aiohttp

from rayserve_platform.bench.calls import Call, server_root
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.samples import FROM_CHUNKS, FROM_USAGE, Sample
from rayserve_platform.bench.sse import EventReader, is_error, json_object, output_tokens

_JSON = {"Content-Type": "application/json"}
# A server that is up answers its list of models at once.
_MODELS_TIMEOUT_S = 30.0


@asynccontextmanager
async def http_exchange(
    call: Call,
) -> AsyncIterator[Callable[[int, float], Awaitable[Sample]]]:
    """Yield what sends request number i, reads its whole answer and measures it from a moment on.

    The moment (perf_counter) is when the request was due. Connections are kept alive and as many
    as needed. Never raises for a failed request: the sample says `timeout`, `connect`,
    `disconnect`, `http_<status>`, `stream_error` (in-band), `truncated` (no `[DONE]`) or
    `bad_answer`.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        headers={**_JSON, **call.headers},
        timeout=aiohttp.ClientTimeout(total=call.timeout_s),
    ) as session:
        yield partial(_answer, session, call)


async def _answer(
    session: aiohttp.ClientSession, call: Call, index: int, started_s: float
) -> Sample:
    try:
        return await _exchange(session, call, index, started_s)
    except TimeoutError:
        return _failed("timeout", started_s)
    except aiohttp.ClientConnectorError:
        return _failed("connect", started_s)
    except (aiohttp.ClientError, ConnectionError):
        return _failed("disconnect", started_s)


async def _exchange(
    session: aiohttp.ClientSession, call: Call, index: int, started_s: float
) -> Sample:
    body = call.bodies[index % len(call.bodies)]
    async with session.post(call.url, data=body) as response:
        if response.status >= 400:
            await response.read()
            return _failed(f"http_{response.status}", started_s)
        if response.content_type == "text/event-stream":
            return await _read_stream(response, call, started_s)
        content = await response.read()
    if not call.openai:
        return Sample(latency_s=perf_counter() - started_s)
    return _answered(content, call, started_s)


async def _read_stream(response: aiohttp.ClientResponse, call: Call, started_s: float) -> Sample:
    reader = EventReader(parse=call.openai)
    async for data in response.content.iter_any():
        reader.feed(data, perf_counter())
    ended_s = perf_counter()
    reader.finish(ended_s)
    if call.openai and is_error(reader.last):
        return _failed("stream_error", started_s)
    if call.openai and not reader.done:
        return _failed("truncated", started_s)
    tokens = output_tokens(reader.last) if call.openai else None
    counted = reader.content_events if call.openai else None
    return Sample(
        latency_s=ended_s - started_s,
        ttft_s=None if reader.first_content_s is None else reader.first_content_s - started_s,
        gaps_s=tuple(reader.gaps_s),
        events=reader.events,
        output_tokens=tokens if tokens is not None else counted,
        tokens_from=_source(tokens, counted),
    )


def _answered(content: bytes, call: Call, started_s: float) -> Sample:
    """Read an OpenAI answer that came in one piece."""
    if call.stream or "choices" not in json_object(content):
        return _failed("bad_answer", started_s)
    tokens = output_tokens(content)
    return Sample(
        latency_s=perf_counter() - started_s,
        output_tokens=tokens,
        tokens_from=_source(tokens, None),
    )


def _source(tokens: int | None, counted: int | None) -> str | None:
    if tokens is not None:
        return FROM_USAGE
    return FROM_CHUNKS if counted is not None else None


def _failed(kind: str, started_s: float) -> Sample:
    return Sample(latency_s=perf_counter() - started_s, error=kind)


async def one_answer(call: Call) -> tuple[bytes, Mapping[str, str]]:
    """Return what the first body of a call is answered with, and the headers.

    Raises:
        BenchError: no answer, or an error's status.
    """
    timeout = aiohttp.ClientTimeout(total=call.timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers={**_JSON, **call.headers}) as session,
            session.post(call.url, data=call.bodies[0]) as response,
        ):
            body = await response.read()
    except (TimeoutError, aiohttp.ClientError) as error:
        raise BenchError(f"no answer ({type(error).__name__})") from error
    if response.status != 200:
        raise BenchError(f"http_{response.status}")
    return body, response.headers


async def first_model(base_url: str, headers: Mapping[str, str]) -> str:
    """Return the id of the first model that `GET /v1/models` lists.

    Raises:
        BenchError: no answer, an error status, or an empty list.
    """
    url = server_root(base_url) + "/v1/models"
    timeout = aiohttp.ClientTimeout(total=_MODELS_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=dict(headers)) as session,
            session.get(url) as response,
        ):
            status, content = response.status, await response.read()
    except TimeoutError as error:
        raise BenchError(f"{url} did not answer within {_MODELS_TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise BenchError(f"{url} can't be reached: {error}") from error
    if status != 200:
        raise BenchError(f"{url} answered {status}; give --model, and --api-key if it wants one")
    models = json_object(content).get("data")
    if isinstance(models, list) and models and isinstance(models[0], dict) and "id" in models[0]:
        return str(models[0]["id"])
    raise BenchError(f"{url} lists no model; give --model")
