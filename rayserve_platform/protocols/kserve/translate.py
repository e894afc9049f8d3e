"""The REST shape of an inference, to the vocabulary and back."""

from collections.abc import Callable
from math import prod
from typing import Any

import orjson

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.tensors import (
    DTYPES,
    Infer,
    Inference,
    ModelVersion,
    Tensor,
    TensorSpec,
)
from rayserve_platform.protocols.kserve import images
from rayserve_platform.protocols.kserve.schema import Body, Given, no_values
from rayserve_platform.protocols.kserve.tensors import (
    Buffer,
    from_bytes,
    from_values,
    invalid,
    shown,
    to_bytes,
    to_values,
    unpack,
)

Spec = Callable[[str], TensorSpec | None]
"""Looks an input of the model up."""
JSON = b"application/json"
BINARY = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"


def to_infer(
    body: Body,
    rest: memoryview,
    card: ModelCard,
    version: str | None,
    spec: Spec = lambda _: None,
    *,
    request_id: str = "",
) -> Infer:
    """Turn a request and the bytes behind its JSON into the vocabulary's.

    `spec` knows the model's inputs, where pictures may be among the request's.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the input, what is expected and what came.
    """
    inputs: list[Tensor] = []
    place = 0
    for given in body.inputs:
        raw: memoryview | None = None
        if given.data is None:
            raw = _cut(given, rest, place, alone=len(body.inputs) == 1)
            place += len(raw)
        inputs.append(_tensor(given, raw, spec))
    if place != len(rest):
        raise invalid(f"{len(rest) - place} bytes are left over behind the inputs.", "body")
    return Infer(
        model=card.id,
        inputs=tuple(inputs),
        version=version,
        outputs=tuple(body.outputs),
        parameters=body.parameters,
        request_id=request_id,
    )


def _cut(given: Given, rest: memoryview, place: int, *, alone: bool) -> memoryview:
    """Return an input's data, of which other inputs' goes up to `place`."""
    size = given.size_bytes
    if size is None:
        if not alone or not rest:
            raise no_values(given.name)
        return rest
    raw = rest[place : place + size]
    if len(raw) != size:
        raise invalid(
            f"Input '{shown(given.name)}': expected {size} bytes behind the JSON, got {len(raw)}."
        )
    return raw


def _tensor(given: Given, raw: memoryview | None, spec: Spec) -> Tensor:
    name, datatype, shape = given.name, given.datatype, given.shape
    if datatype == "BYTES":
        found = spec(name)
        if images.are_images(datatype, len(shape), found):
            assert found is not None
            files = _files(given, raw)
            return Tensor(name=name, datatype=found.datatype, data=images.decode(found, files))
    if raw is not None:
        return Tensor(name=name, datatype=datatype, data=from_bytes(name, datatype, shape, raw))
    assert given.data is not None
    data = from_values(name, datatype, shape, given.data)
    return Tensor(name=name, datatype=datatype, data=data)


def _files(given: Given, raw: memoryview | None) -> list[bytes]:
    """Return encoded images."""
    if raw is not None:
        return unpack(given.name, given.shape, raw)
    raise invalid(
        f"Input '{shown(given.name)}': encoded images go behind the JSON "
        "('binary_data_size'); JSON can't carry them."
    )


def raw_infer(
    body: Buffer,
    card: ModelCard,
    version: ModelVersion,
    *,
    asked: str | None = None,
    request_id: str = "",
) -> Infer:
    """Turn a body that is nothing but the data of the model's only input.

    `version` tells the tensor; `asked` is the one that the request names, if it does.

    Source: binary tensor data extension, "raw binary request": the header's length is 0, and what
    one dimension leaves open follows from the data's length.
    """
    if len(version.inputs) != 1:
        raise invalid(
            f"A raw body needs a model with one input; this one has {len(version.inputs)}.", "body"
        )
    (spec,) = version.inputs
    if spec.datatype == "BYTES":
        if any(size not in (-1, 1) for size in spec.shape):
            raise invalid(
                f"Input '{spec.name}': a raw body is one element; the shape is {list(spec.shape)}."
            )
        packed = len(body).to_bytes(4, "little") + bytes(body)
        data = from_bytes(spec.name, "BYTES", (1,) * len(spec.shape), packed)
    elif images.are_images("BYTES", 1, spec):
        data = images.decode(spec, [bytes(body)])
    else:
        data = from_bytes(spec.name, spec.datatype, _implied(spec, len(body)), body)
    tensor = Tensor(name=spec.name, datatype=spec.datatype, data=data)
    return Infer(model=card.id, inputs=(tensor,), version=asked, request_id=request_id)


def _implied(spec: TensorSpec, size_bytes: int) -> tuple[int, ...]:
    if sum(size < 0 for size in spec.shape) > 1:
        raise invalid(
            f"Input '{spec.name}': a raw body can't tell the sizes of shape {list(spec.shape)}."
        )
    row = prod(size for size in spec.shape if size >= 0) * DTYPES[spec.datatype].itemsize
    if not row or not size_bytes or size_bytes % row:
        raise invalid(
            f"Input '{spec.name}': expected a multiple of {row} bytes for shape "
            f"{list(spec.shape)}, got {size_bytes}."
        )
    return tuple(size_bytes // row if size < 0 else size for size in spec.shape)


def render(
    inference: Inference, *, name: str, request_id: str, wanted: dict[str, bool], binary: bool
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Write an answer: headers that tell its shape, and the body.

    Args:
        inference: what the model has answered.
        request_id: the client's own, which is repeated; empty for none.
        name: what the client calls the model.
        wanted: the outputs that were asked for, each with whether it is to be binary.
        binary: whether the others are.
    """
    blobs: list[Buffer] = []
    outputs: list[dict[str, Any]] = []
    for tensor in inference.outputs:
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.data.shape,
        }
        if wanted.get(tensor.name, binary):
            blob = to_bytes(tensor)
            output["parameters"] = {"binary_data_size": memoryview(blob).nbytes}
            blobs.append(blob)
        else:
            output["data"] = to_values(tensor)
        outputs.append(output)
    head = {"model_name": name, "model_version": inference.version or "1"}
    document: dict[str, Any] = head if not request_id else {**head, "id": request_id}
    if inference.parameters:
        document["parameters"] = dict(inference.parameters)
    document["outputs"] = outputs
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return [(b"content-type", JSON)], text
    headers = [(b"content-type", BINARY), (HEADER_LENGTH, b"%d" % len(text))]
    return headers, b"".join((text, *blobs))
