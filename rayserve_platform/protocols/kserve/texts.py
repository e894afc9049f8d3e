"""Inference on models that take no tensors: what their texts are called, in and out.

| model | input | output | parameters |
|---|---|---|---|
| embeddings | `text` BYTES [n] | `embedding` FP32 [n, size] | `truncate_tokens`, `dimensions` |
| text generation | `text_input` BYTES [1] | `text_output` BYTES [1] | `generation.PARAMETERS` |
"""

from contextlib import aclosing
from typing import Any

import numpy as np

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, InputTooLong, PlatformError
from rayserve_platform.core.messages import Embed, Generate
from rayserve_platform.core.stream import join
from rayserve_platform.core.tensors import (
    Infer,
    Inference,
    ModelVersion,
    Parameters,
    Tensor,
    TensorSpec,
    check,
    chosen,
)
from rayserve_platform.protocols.kserve.generation import to_generate
from rayserve_platform.protocols.kserve.tensors import invalid, objects, written

VERSION = "1"
"""The version of models that have none."""
TEXT, EMBEDDING = "text", "embedding"
TEXT_INPUT, TEXT_OUTPUT = "text_input", "text_output"


def version_of(card: ModelCard, version: str | None) -> ModelVersion:
    """Return the version that a request means, with its tensors.

    Raises:
        PlatformError: NOT_FOUND and UNAVAILABLE as `chosen`; INVALID_ARGUMENT for a model that
            answers no inference.
    """
    return chosen(versions_of(card), version, card.id)


def versions_of(card: ModelCard) -> tuple[ModelVersion, ...]:
    """Return a model's versions; one that takes texts has one."""
    if Task.INFER in card.tasks:
        return card.versions
    if Task.GENERATE in card.tasks:
        inputs, outputs = _spec(TEXT_INPUT, "BYTES", 1), _spec(TEXT_OUTPUT, "BYTES", 1)
    elif Task.EMBED in card.tasks:
        inputs, outputs = _spec(TEXT, "BYTES", -1), _spec(EMBEDDING, "FP32", -1, _size(card))
    else:
        return (ModelVersion(version=VERSION),)
    return (ModelVersion(version=VERSION, inputs=inputs, outputs=outputs),)


def _spec(name: str, datatype: str, *shape: int) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name=name, datatype=datatype, shape=shape),)


def _size(card: ModelCard) -> int:
    return -1 if card.dimension is None else card.dimension


async def infer(served: Served, request: Infer) -> Inference:
    """Ask a model's runtime by the verb that it has."""
    card = served.card
    if Task.INFER in card.tasks:
        return await served.runtime.infer(request)
    if Task.GENERATE in card.tasks:
        version, asked = text_request(served, request)
        async with aclosing(served.runtime.generate(asked)) as answers:
            whole = join([chunk async for chunks in answers for chunk in chunks])
        output = text_tensor(whole.text)
    else:
        version, texts = _texts(card, request)
        output = await _embed(served, request, texts)
    return Inference(model=card.id, version=version, outputs=(output,))


def text_request(served: Served, request: Infer) -> tuple[str, Generate]:
    """Turn an inference on a model that writes text into a request for it.

    Returns:
        The version that answers, and the request, whose answer comes whole.

    Raises:
        PlatformError: for anything that is wrong with the inference.
    """
    version, texts = _texts(served.card, request)
    return version, to_generate(
        served, texts[0], request.parameters, stream=False, request_id=request.request_id
    )


def _texts(card: ModelCard, request: Infer) -> tuple[str, tuple[str, ...]]:
    version = version_of(card, request.version)
    if not version.inputs:
        raise PlatformError(
            Code.UNIMPLEMENTED, f"The model '{card.id}' answers no inference.", param="model"
        )
    check(request, version)
    return version.version, _decoded(request.inputs[0])


def _decoded(tensor: Tensor) -> tuple[str, ...]:
    try:
        return tuple(bytes(item).decode() for item in tensor.data)
    except UnicodeDecodeError:
        raise invalid(f"Input '{tensor.name}' holds bytes that are no UTF-8 text.") from None


async def _embed(served: Served, request: Infer, texts: tuple[str, ...]) -> Tensor:
    if not texts:
        raise invalid(f"Input '{TEXT}': expected at least one text, got none.")
    asked = Embed(
        model=served.card.id,
        inputs=texts,
        truncate_tokens=_count(request.parameters, "truncate_tokens"),
        dimensions=_count(request.parameters, "dimensions"),
        request_id=request.request_id,
    )
    try:
        found = await served.runtime.embed(asked)
    except InputTooLong as error:
        places = ", ".join(map(str, sorted(error.indexes)))
        raise invalid(
            f"Input '{TEXT}' at index {places}: longer than this model's maximum of "
            f"{error.limit} tokens."
        ) from None
    return Tensor(name=EMBEDDING, datatype="FP32", data=np.asarray(found.vectors, np.float32))


def _count(parameters: Parameters, name: str) -> int | None:
    found: Any = parameters.get(name)
    if found is None or (type(found) is int and found > 0):
        return found
    raise invalid(
        f"The parameter '{name}' must be a whole number above 0, got {written(found)}.",
        "parameters",
    )


def text_tensor(text: str) -> Tensor:
    """Return the output of text generation."""
    return Tensor(name=TEXT_OUTPUT, datatype="BYTES", data=objects([text.encode()]))
