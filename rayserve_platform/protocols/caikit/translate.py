"""Caikit's requests to the vocabulary, and its words for what is wrong with them. Pure.

A request's arguments are a dict by Caikit's own names, whichever transport they came over; what was
not sent is not in it. Over both transports the documents of a rerank are dicts here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import Code, InputTooLong, PlatformError
from rayserve_platform.core.messages import Embed, Tokenize
from rayserve_platform.core.scores import Score
from rayserve_platform.protocols.caikit.tasks import (
    CROSS_ENCODER_MODULE,
    EMBEDDING_MODULE,
    CaikitTask,
    Module,
    module_of,
    tasks_of,
)

Arguments = Mapping[str, Any]
SPECIAL_TOKENS = 2
"""A start and an end, which a bi-encoder adds to what a request asks for; a cross-encoder counts
its separators in."""
SPECIALS = {EMBEDDING_MODULE: "+2 for start/end tokens", CROSS_ENCODER_MODULE: "+3 for separators"}
"""What errors say of them."""
SHOWN_NAME_CHARS = 200
MAX_ANSWER_BYTES = 2**28
"""A body of a megabyte can hold half a million texts, or ask for each of a thousand queries to be
scored with a thousand documents: the answer must have a bound of its own."""
NUMBER_BYTES = 20
SCORE_BYTES = 100
"""A number of a vector, and a score with what stands around it, as JSON."""


def invalid(message: str) -> PlatformError:
    """Return the error for a caller's mistake."""
    return PlatformError(Code.INVALID_ARGUMENT, message)


def not_loaded(name: str) -> PlatformError:
    """Return the error for a model that is not served."""
    return PlatformError(Code.NOT_FOUND, f"Model '{name[:SHOWN_NAME_CHARS]}' not loaded")


def arguments_of(task: CaikitTask, body: BaseModel) -> dict[str, Any]:
    """Return the arguments in a checked REST body; an empty `inputs` counts as not sent."""
    fields = body.__dict__
    found: dict[str, Any] = {}
    inputs = fields["inputs"]
    if isinstance(inputs, BaseModel):
        found |= _sent(inputs)
    elif inputs:
        found[next(iter(task.inputs))] = inputs
    parameters = fields.get("parameters")
    if parameters is not None:
        found |= _sent(parameters)
    return found


def _sent(part: BaseModel) -> dict[str, Any]:
    return {name: part.__dict__[name] for name in part.model_fields_set}


def check(task: CaikitTask, card: ModelCard, arguments: Arguments) -> None:
    """Refuse a task that the model can't do, and arguments that are not complete.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the model's tasks, or what is missing as Python does
            where the original calls its module.
    """
    able = tasks_of(card)
    if task.name not in able:
        raise invalid(
            f"Model '{card.id}' does not support the task '{task.name}'. "
            f"Its tasks: {', '.join(able) or 'none of this API'}."
        )
    missing = [f"'{name}'" for name in task.inputs if name not in arguments]
    if missing:
        noun = "argument" if len(missing) == 1 else "arguments"
        raise invalid(
            f"{_class(card)}.{task.function}() missing {len(missing)} required positional {noun}: "
            + " and ".join(missing)
        )


def check_size(task: CaikitTask, card: ModelCard, arguments: Arguments, request_bytes: int) -> None:
    """Refuse what would be answered with more than `MAX_ANSWER_BYTES`, before anything is computed.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    counts = [len(arguments[name]) if kind is not str else 1 for name, kind in task.inputs.items()]
    if "documents" in arguments:
        told = sum(arguments.get(name, True) for name in ("return_documents", "return_text"))
        needed = counts[0] * (counts[1] * SCORE_BYTES + told * request_bytes)
    else:
        row = counts[1] if len(counts) > 1 else card.dimension or 1
        needed = counts[0] * row * NUMBER_BYTES
    if needed > MAX_ANSWER_BYTES:
        raise invalid(
            f"The answer would be larger than {MAX_ANSWER_BYTES >> 20} MiB; "
            "send fewer texts at a time."
        )


def _class(card: ModelCard) -> str:
    module: Module = module_of(card)
    return module.class_name


def truncation(arguments: Arguments, card: ModelCard) -> int | None:
    """Return how many tokens to keep of each text, special tokens included.

    None: all, and a text that is too long is refused. The original does that for a number above the
    model's maximum as well, and takes any negative one for the maximum.
    """
    asked: int = arguments.get("truncate_input_tokens", 0)
    most = card.max_model_len
    if asked == 0:
        return None
    if asked < 0:
        return most
    added = 0 if module_of(card) is CROSS_ENCODER_MODULE else SPECIAL_TOKENS
    if most is None:
        return asked + added
    return None if asked > most else min(asked + added, most)


def to_embed(arguments: Arguments, card: ModelCard, request_id: str) -> Embed:
    """Translate the embedding tasks."""
    return Embed(
        model=card.id,
        inputs=_texts(arguments, "text", "texts"),
        truncate_tokens=truncation(arguments, card),
        request_id=request_id,
    )


def to_similarity(arguments: Arguments, card: ModelCard, request_id: str) -> Score:
    """Translate the sentence similarity tasks: each sentence is a query for the sources.

    The original complains of a source first, and a runtime of documents, as in a rerank. A cosine
    is the same either way round.
    """
    sources = _texts(arguments, "source_sentence", "source_sentences")
    sentences = tuple(arguments["sentences"])
    if not sources or not sentences:
        raise invalid(
            "value check failed: Cannot compare without a source sentence and at least one sentence"
        )
    return Score(
        model=card.id,
        queries=sentences,
        documents=sources,
        truncate_tokens=truncation(arguments, card),
        request_id=request_id,
    )


def to_rerank(arguments: Arguments, card: ModelCard, request_id: str) -> Score:
    """Translate the rerank tasks."""
    queries = _texts(arguments, "query", "queries")
    documents = tuple(map(document_text, arguments["documents"]))
    if not queries or not documents:
        raise invalid("value check failed: Cannot rerank without a query and at least one document")
    return Score(
        model=card.id,
        queries=queries,
        documents=documents,
        truncate_tokens=truncation(arguments, card),
        lenient=True,
        request_id=request_id,
    )


def to_tokenize(arguments: Arguments, card: ModelCard, request_id: str) -> Tokenize:
    """Translate tokenization: of a long text, what a model that embeds would take of it."""
    embeds = module_of(card) in SPECIALS
    return Tokenize(
        model=card.id,
        prompt=arguments["text"],
        truncate_tokens=card.max_model_len if embeds else None,
        truncate_side="right",
        request_id=request_id,
    )


def _texts(arguments: Arguments, single: str, several: str) -> tuple[str, ...]:
    return (arguments[single],) if single in arguments else tuple(arguments[several])


def document_text(document: Mapping[str, Any]) -> str:
    """Return what of a document is scored: its `text`, else its `_text`, else nothing."""
    text = document.get("text") or document.get("_text", "")
    if not isinstance(text, str):
        kind = type(text).__name__
        raise invalid(
            f"type check failed: element of `sentences` has type `{kind}` not in `('str',)`"
        )
    return text


def ranking(scores: NDArray[np.float32], arguments: Arguments) -> list[tuple[int, float]]:
    """Return (place of the document, score), best first, as many as `top_n` says if it is ≥ 1."""
    top_n: int = arguments.get("top_n", 0)
    order = np.argsort(-scores, kind="stable").tolist()
    values: Sequence[float] = scores.astype(np.float64).tolist()
    return [(place, values[place]) for place in (order[:top_n] if top_n >= 1 else order)]


def too_long(task: CaikitTask, module: Module, error: InputTooLong) -> PlatformError:
    """Return the original's error for texts that are too long, with their places if it has them."""
    specials = SPECIALS.get(module, SPECIALS[EMBEDDING_MODULE])
    message = (
        f"Token sequence length ({specials}) exceeds the maximum sequence length for this model "
        f"({error.limit})"
    )
    if error.field in task.listed and error.indexes:
        noun = "index" if len(error.indexes) == 1 else "indexes"
        message += f" for text at {noun}: {', '.join(map(str, error.indexes))}"
    return invalid(f"{message}.")
