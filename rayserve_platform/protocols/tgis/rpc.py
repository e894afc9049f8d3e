"""`fmaas.GenerationService`: check, translate, generate, translate back."""

import asyncio
import posixpath
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

import grpc

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, PlatformError, PromptTooLong, overloaded
from rayserve_platform.core.messages import Generate, Tokenize
from rayserve_platform.edge.observe import request_id
from rayserve_platform.edge.quotas.exceeded import QuotaExceeded
from rayserve_platform.edge.rpc import STATUS, Call, Stream, Unary
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.protocols.tgis.metrics import Kind, TgisMetrics
from rayserve_platform.protocols.tgis.options import Options
from rayserve_platform.protocols.tgis.translate import (
    Responses,
    adapter_of,
    from_card,
    from_tokens,
    to_generate,
    to_tokenize,
)
from rayserve_platform.protocols.tgis.validation import check, invalid

Answer = TypeVar("Answer")

OVERLOADED = "Model is overloaded"
CORRELATION_KEY = "x-correlation-id"
MAX_DETAILS_CHARS = 1000
"""Details travel in a header, and a grammar's error may quote all of it."""
TOKENIZED_AT_A_TIME = 16
MAX_REQUEST_BYTES = 4 * 2**20
"""gRPC's own default, which Serve's servers lift: TGIS's clients know it, and it bounds a batch."""


class RequestTooLarge(PlatformError):
    """A message over the limit; its words are gRPC's."""

    def __init__(self, size: int) -> None:
        super().__init__(
            Code.RESOURCE_EXHAUSTED,
            f"SERVER: Received message larger than max ({size} vs. {MAX_REQUEST_BYTES})",
        )


class TgisRpc:
    """The protocol as the edge sees it."""

    name = "tgis"
    exempt = False
    probes: frozenset[str] = frozenset()
    services = (pb.DESCRIPTOR.services_by_name["GenerationService"].full_name,)

    def __init__(self, catalog: Catalog, options: Options, metrics: TgisMetrics) -> None:
        self._catalog = catalog
        self._options = options
        self._metrics = metrics
        self._prompts = 0
        self.unary: dict[str, Unary] = {
            "Generate": self._generate,
            "Tokenize": self._tokenize,
            "ModelInfo": self._model_info,
        }
        self.streams: dict[str, Stream] = {"GenerateStream": self._generate_stream}

    def error(self, error: PlatformError) -> tuple[grpc.StatusCode, str]:
        """Return an error in TGIS's words; the edge asks once for each call that fails."""
        self._metrics.failed(error.code)
        match error:
            case PromptTooLong():
                return grpc.StatusCode.INVALID_ARGUMENT, _too_long(error)
            case RequestTooLarge() | QuotaExceeded():
                return grpc.StatusCode.RESOURCE_EXHAUSTED, error.message
            case PlatformError(code=Code.RESOURCE_EXHAUSTED):
                return grpc.StatusCode.RESOURCE_EXHAUSTED, OVERLOADED
            case PlatformError(code=Code.UNIMPLEMENTED):
                # What a runtime cannot do is the caller's to change.
                return grpc.StatusCode.INVALID_ARGUMENT, error.message[:MAX_DETAILS_CHARS]
        return STATUS[error.code], error.message[:MAX_DETAILS_CHARS]

    async def _generate(self, call: Call) -> Any:
        request = _bounded(call)
        kind: Kind = "single" if len(request.requests) == 1 else "batch"
        texts = [item.text for item in request.requests]
        with self._metrics.call(kind, len(texts)) as began, self._places(len(texts)):
            served, asked = await self._asked(call, texts, stream=False)
            answers = await _all(
                [self._whole(kind, served, one, request.params, began) for one in asked]
            )
        return pb.BatchedGenerationResponse(responses=answers)

    async def _whole(
        self, kind: Kind, served: Served, asked: Generate, params: Any, began: float
    ) -> Any:
        """Answer one prompt of a batch."""
        sent = time.monotonic()
        with self._metrics.engine():
            async with aclosing(served.runtime.generate(asked)) as batches:
                [chunk] = [chunk async for chunks in batches for chunk in chunks]
        text = str(asked.prompt)
        answer = Responses(params, self._options, text, served.card).whole(chunk)
        self._metrics.succeeded(
            kind,
            first=chunk,
            stop_reason=answer.stop_reason,
            generated=answer.generated_token_count,
            max_new_tokens=asked.stopping.max_new_tokens or 0,
            began=began,
            sent=sent,
        )
        return answer

    async def _generate_stream(self, call: Call) -> AsyncGenerator[Any, None]:
        request = _bounded(call)
        with self._metrics.call("stream", 1) as began, self._places(1):
            if not request.HasField("request"):
                raise invalid("missing request")
            text = request.request.text
            served, [asked] = await self._asked(call, [text], stream=True)
            responses = Responses(request.params, self._options, text, served.card)
            sent = time.monotonic()
            first, message = None, None
            with self._metrics.engine():
                async with aclosing(served.runtime.generate(asked)) as batches:
                    async for chunks in batches:
                        for chunk in chunks:
                            if first is None:
                                first = chunk
                                yield responses.first(chunk)
                            message = responses.piece(chunk)
                            yield message
            assert first is not None
            assert message is not None
            self._metrics.succeeded(
                "stream",
                first=first,
                stop_reason=message.stop_reason,
                generated=message.generated_token_count,
                max_new_tokens=asked.stopping.max_new_tokens or 0,
                began=began,
                sent=sent,
            )

    async def _asked(
        self, call: Call, texts: Sequence[str], *, stream: bool
    ) -> tuple[Served, list[Generate]]:
        """Find the model and check the call."""
        request = call.request
        served = await self._served(call)
        adapter = adapter_of(request)
        await self._may_use(served, adapter)
        problem = _problem(request.params, self._options)
        if adapter is not None and (problem is not None or not texts):
            # An adapter that does not exist is told of first, and only the runtime knows.
            looked_up = Tokenize(model=served.card.id, prompt="", adapter=adapter)
            await served.runtime.tokenize(looked_up)
        if problem is not None:
            raise problem
        asked = [
            to_generate(
                text,
                request.params,
                self._options,
                model=served.card.id,
                adapter=adapter or served.adapter,
                stream=stream,
                request_id=call.request_id,
            )
            for text in texts
        ]
        return served, asked

    async def _tokenize(self, call: Call) -> Any:
        request = _bounded(call)
        served = await self._served(call)
        await self._may_use(served, adapter_of(request))
        self._metrics.tokenized.inc()
        self._metrics.tokenized_inputs.inc(len(request.requests))
        answer = pb.BatchedTokenizeResponse()
        asked = [
            to_tokenize(item.text, request, model=served.card.id, request_id=call.request_id)
            for item in request.requests
        ]
        with self._metrics.tokenize_duration.time():
            for start in range(0, len(asked), TOKENIZED_AT_A_TIME):
                some = asked[start : start + TOKENIZED_AT_A_TIME]
                for tokens in await _all([served.runtime.tokenize(one) for one in some]):
                    answer.responses.append(from_tokens(tokens, request))
                    self._metrics.tokenize_tokens.observe(len(tokens.ids))
        return answer

    async def _may_use(self, served: Served, adapter: str | None) -> None:
        """Refuse an adapter that is not the caller's, and another spelling of one that may be."""
        if adapter is None:
            return
        if adapter != posixpath.normpath(adapter) or adapter.startswith("/"):
            raise _no_id(adapter)
        if await self._catalog.adapted(served, adapter) is None:
            raise _no_adapter(adapter)

    async def _model_info(self, call: Call) -> Any:
        return from_card((await self._served(call)).card, self._options)

    async def _served(self, call: Call) -> Served:
        """Return the model: the only one whatever the call names, else the one it names."""
        if "x-request-id" not in call.metadata and call.metadata.get(CORRELATION_KEY):
            call.record.request_id = request_id(call.metadata[CORRELATION_KEY].encode())
        try:
            served = await self._catalog.resolve(None)
        except PlatformError as error:
            if error.code is not Code.INVALID_ARGUMENT or not call.request.model_id:
                raise
            served = await self._catalog.resolve(call.request.model_id)
        call.record.model = served.card.id
        return served

    @contextmanager
    def _places(self, count: int) -> Iterator[None]:
        """Hold a place for each prompt of a call, as the original's permits."""
        if self._prompts + count > self._options.max_prompts:
            raise overloaded()
        self._prompts += count
        try:
            yield
        finally:
            self._prompts -= count


def _no_adapter(adapter: str) -> PlatformError:
    """Return the runtime's own words for an adapter that there is not."""
    return invalid(f"can't retrieve adapter with id '{adapter[:200]}': directory does not exist")


def _no_id(adapter: str) -> PlatformError:
    """Return the runtime's own words for a text that names no adapter."""
    shown = adapter[:200]
    return invalid(f"Invalid adapter id '{shown}', must contain only alphanumeric, _ and - and /")


def _bounded(call: Call) -> Any:
    size = call.request.ByteSize()
    if size > MAX_REQUEST_BYTES:
        raise RequestTooLarge(size)
    return call.request


def _problem(params: Any, options: Options) -> PlatformError | None:
    try:
        check(params, options)
    except PlatformError as problem:
        return problem
    return None


def _too_long(error: PromptTooLong) -> str:
    prompt = f"input tokens ({error.token_count}) plus prefix length (0)"
    if error.min_new_tokens:
        return f"{prompt} plus min_new_tokens ({error.min_new_tokens}) must be <= {error.limit}"
    return f"{prompt} must be < {error.limit}"


async def _all(work: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Do all at a time and return the answers in order; the first failure ends the others."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.create_task(one) for one in work]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and (error := task.exception()):
                raise error
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
