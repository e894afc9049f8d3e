"""What both transports do with a task: find the model, check the arguments, ask its runtime."""

from dataclasses import dataclass

from rayserve_platform.core.catalog import Catalog, Served
from rayserve_platform.core.errors import Code, InputTooLong, PlatformError
from rayserve_platform.core.messages import Embeddings, ModelCard, Scores, Tokens
from rayserve_platform.protocols.caikit import tasks
from rayserve_platform.protocols.caikit.tasks import CaikitTask, Module, module_of
from rayserve_platform.protocols.caikit.translate import (
    Arguments,
    check,
    invalid,
    not_loaded,
    to_embed,
    to_rerank,
    to_similarity,
    to_tokenize,
    too_long,
)

Result = Embeddings | Scores | Tokens


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


async def answer(task: CaikitTask, served: Served, arguments: Arguments, request_id: str) -> Answer:
    """Do the task.

    Raises:
        PlatformError: in the original's words for the caller's mistakes, else in the runtime's.
    """
    check(task, served.card, arguments)
    try:
        result = await _ask(task, served, served.card, arguments, request_id)
    except InputTooLong as error:
        raise too_long(task, error) from None
    return Answer(task=task, arguments=arguments, module=module_of(served.card), result=result)


async def _ask(
    task: CaikitTask, served: Served, card: ModelCard, arguments: Arguments, request_id: str
) -> Result:
    runtime = served.runtime
    if task in (tasks.EMBEDDING, tasks.EMBEDDINGS):
        return await runtime.embed(to_embed(arguments, card, request_id))
    if task in (tasks.SIMILARITY, tasks.SIMILARITIES):
        return await runtime.score(to_similarity(arguments, card, request_id))
    if task in (tasks.RERANK, tasks.RERANKS):
        return await runtime.score(to_rerank(arguments, card, request_id))
    return await runtime.tokenize(to_tokenize(arguments, card, request_id))
