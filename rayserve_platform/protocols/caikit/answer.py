"""What both transports do with a task: find the model, check the arguments, ask its runtime."""

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, InputTooLong, PlatformError, PromptTooLong
from rayserve_platform.core.messages import Chunk, Embeddings, Tokens
from rayserve_platform.core.scores import Scores
from rayserve_platform.protocols.caikit import tasks
from rayserve_platform.protocols.caikit.generation import (
    check_generation,
    preserved_text,
    prompt_too_long,
    to_generate,
)
from rayserve_platform.protocols.caikit.tasks import (
    TEXT_GENERATION_MODULE,
    CaikitTask,
    Module,
    module_of,
)
from rayserve_platform.protocols.caikit.translate import (
    Arguments,
    check,
    check_size,
    invalid,
    not_loaded,
    to_embed,
    to_rerank,
    to_similarity,
    to_tokenize,
    too_long,
)

log = logging.getLogger("rayserve.edge")

Result = Embeddings | Scores | Tokens | Chunk

CLOSED = "The underlying TCP connection is closed"


class Unreached(PlatformError):
    """A language model's runtime that does not answer, which Caikit tells by codes of its own."""

    def __init__(self, message: str, retry_after_s: float | None) -> None:
        super().__init__(Code.UNAVAILABLE, message, retry_after_s=retry_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A task of a model, with its arguments.

    Args:
        max_new_tokens: the most that a request may ask for.
        size_bytes: of the request.
    """

    task: CaikitTask
    served: Served
    arguments: Arguments
    max_new_tokens: int
    size_bytes: int
    request_id: str

    @property
    def module(self) -> Module:
        """What the model counts as."""
        return module_of(self.served.card)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a runtime found, with what it takes to render it."""

    task: CaikitTask
    arguments: Arguments
    module: Module
    result: Result


async def find(catalog: Catalog, name: str | None) -> Served:
    """Return the model that a request names: it must, even where there is only one.

    Raises:
        PlatformError: NOT_FOUND also for a model that could not be loaded; UNAVAILABLE for one that
            is loading.
    """
    if not name:
        raise invalid("Missing required model ID")
    try:
        return await catalog.resolve(name)
    except PlatformError as error:
        broken = error.code is Code.UNAVAILABLE and error.param == "model"
        if broken or error.code is Code.NOT_FOUND:
            raise not_loaded(name) from None
        raise


async def answer(asked: Asked) -> Answer:
    """Do the task.

    Raises:
        PlatformError: in the original's words for the caller's mistakes, else in the runtime's.
    """
    check(asked.task, asked.served.card, asked.arguments)
    check_size(asked.task, asked.served.card, asked.arguments, asked.size_bytes)
    with _told(asked):
        result = await _ask(asked)
    return Answer(task=asked.task, arguments=asked.arguments, module=asked.module, result=result)


async def stream(asked: Asked) -> AsyncGenerator[Sequence[Chunk], None]:
    """Generate text bit by bit; the first chunk tells of the prompt alone. Leaving it aborts it.

    Raises:
        PlatformError: as `answer` does.
    """
    arguments, served = asked.arguments, asked.served
    check(asked.task, served.card, arguments)
    check_generation(arguments, asked.max_new_tokens)
    request = to_generate(arguments, served, stream=True, request_id=asked.request_id)
    begun = False
    with _told(asked):
        async with aclosing(served.runtime.generate(request)) as batches:
            async for chunks in batches:
                if begun:
                    yield chunks
                    continue
                first, *rest = chunks
                opening = Chunk(
                    text=preserved_text(arguments, served.card),
                    prompt=first.prompt,
                    seed=first.seed,
                )
                yield (opening, replace(first, prompt=None, seed=None), *rest)
                begun = True


async def _ask(asked: Asked) -> Result:
    task, arguments, request_id = asked.task, asked.arguments, asked.request_id
    card, runtime = asked.served.card, asked.served.runtime
    if task in (tasks.EMBEDDING, tasks.EMBEDDINGS):
        return await runtime.embed(to_embed(arguments, card, request_id))
    if task in (tasks.SIMILARITY, tasks.SIMILARITIES):
        scores = await runtime.score(to_similarity(arguments, card, request_id))
        return replace(scores, scores=scores.scores.T)
    if task in (tasks.RERANK, tasks.RERANKS):
        return await runtime.score(to_rerank(arguments, card, request_id))
    if task is tasks.TEXT_GENERATION:
        return await _generate(asked)
    found = await runtime.tokenize(to_tokenize(arguments, card, request_id))
    # Of a language model's tokens TGIS tells Caikit no more than their number.
    return replace(found, offsets=()) if asked.module is TEXT_GENERATION_MODULE else found


async def _generate(asked: Asked) -> Chunk:
    arguments, served = asked.arguments, asked.served
    check_generation(arguments, asked.max_new_tokens)
    request = to_generate(arguments, served, stream=False, request_id=asked.request_id)
    async with aclosing(served.runtime.generate(request)) as batches:
        [chunk] = [chunk async for chunks in batches for chunk in chunks]
    return replace(chunk, text=preserved_text(arguments, served.card) + chunk.text)


@contextmanager
def _told(asked: Asked) -> Iterator[None]:
    """Tell a runtime's errors as the original does."""
    try:
        yield
    except InputTooLong as error:
        raise too_long(asked.task, asked.module, error) from None
    except PromptTooLong as error:
        raise prompt_too_long(error) from None
    except PlatformError as error:
        unreached = error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
        if not unreached or asked.module is not TEXT_GENERATION_MODULE:
            raise
        log.warning("request %s: the runtime did not answer: %s", asked.request_id, error.message)
        message = CLOSED if asked.task is tasks.TEXT_GENERATION else error.message
        raise Unreached(message, error.retry_after_s) from None
