"""The protobuf shape of an inference, to the vocabulary and back."""

import sys
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.tensors import Infer, Inference, Tensor, TensorSpec, Value
from rayserve_platform.pb.kserve_inference_pb2 import InferTensorContents, ModelInferResponse
from rayserve_platform.protocols.kserve import images
from rayserve_platform.protocols.kserve.schema import refuse_unsupported
from rayserve_platform.protocols.kserve.tensors import (
    MAX_RANK,
    MAX_TENSORS,
    check_count,
    check_shape,
    check_type,
    from_bytes,
    from_items,
    from_values,
    invalid,
    shown,
    to_bytes,
    unpack,
)

CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the values of each datatype stand; FP16 and BF16 are raw or nothing."""
FIELDS = tuple(field.name for field in InferTensorContents.DESCRIPTOR.fields)
NONE = InferTensorContents()
TENSOR, RAW_ITEM, VALUE = 256, 32, 4
"""What a tensor, a raw element of BYTES and a typed value cost, as measured: see `size_of`."""


def to_infer(
    request: Any,
    card: ModelCard,
    version: str | None,
    spec: Callable[[str], TensorSpec | None] = lambda _: None,
    *,
    max_bytes: int = sys.maxsize,
    request_id: str = "",
) -> Infer:
    """Turn a ModelInferRequest into the vocabulary's.

    `spec` knows the model's inputs, where pictures may be among the request's; `max_bytes` is the
    limit of all raw data.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the input, what is expected and what came.
    """
    check_count(len(request.inputs), "inputs")
    check_count(len(request.outputs), "outputs")
    raws = _raws(request, max_bytes)
    inputs = tuple(
        _tensor(given, raws[index] if raws else None, spec)
        for index, given in enumerate(request.inputs)
    )
    for output in request.outputs:
        if output.parameters:
            refuse_unsupported(values(output.parameters))
    return Infer(
        model=card.id,
        inputs=inputs,
        version=version,
        outputs=tuple(dict.fromkeys(output.name for output in request.outputs)),
        parameters=_parameters(request),
        request_id=request_id,
    )


def _raws(request: Any, max_bytes: int) -> list[bytes]:
    """Return the raw data, one an input, or none."""
    count = len(request.raw_input_contents)
    if count and count != len(request.inputs):
        raise invalid(
            f"'raw_input_contents' must have one entry an input: expected {len(request.inputs)}, "
            f"got {count}.",
            "raw_input_contents",
        )
    raws = list(request.raw_input_contents)
    if sum(map(len, raws)) > max_bytes:
        raise invalid(
            f"'raw_input_contents' has {sum(map(len, raws))} bytes; the limit is {max_bytes}.",
            "raw_input_contents",
        )
    return raws


def _parameters(request: Any) -> dict[str, Value]:
    if not request.parameters:
        return {}
    found = values(request.parameters)
    refuse_unsupported(found)
    return found


def values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as plain values."""
    found: dict[str, Any] = {}
    for key, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise invalid(f"The parameter '{shown(key)}' has no value.", "parameters")
        found[key] = getattr(parameter, choice)
    return found


def _tensor(given: Any, raw: bytes | None, spec: Callable[[str], TensorSpec | None]) -> Tensor:
    name, datatype = given.name, given.datatype
    check_type(name, datatype)
    shape = check_shape(name, given.shape)
    if given.parameters:
        refuse_unsupported(values(given.parameters))
    contents = given.contents if given.HasField("contents") else NONE
    if raw is not None and contents is not NONE and any(contents.ListFields()):
        raise invalid(
            f"Input '{shown(name)}': 'contents' must be empty where 'raw_input_contents' is used."
        )
    found = spec(name) if datatype == "BYTES" else None
    if images.are_images(datatype, len(shape), found):
        assert found is not None
        if raw is None:
            files = list(_typed(name, datatype, shape, contents))
        else:
            files = unpack(name, shape, raw)
        return Tensor(name=name, datatype=found.datatype, data=images.decode(found, files))
    if raw is not None:
        return Tensor(name=name, datatype=datatype, data=from_bytes(name, datatype, shape, raw))
    return Tensor(name=name, datatype=datatype, data=_typed(name, datatype, shape, contents))


def _typed(name: str, datatype: str, shape: tuple[int, ...], contents: Any) -> Any:
    wanted = CONTENTS.get(datatype)
    if wanted is None:
        raise invalid(f"Input '{shown(name)}': {datatype} needs 'raw_input_contents'.")
    for field in FIELDS:
        if field != wanted and getattr(contents, field):
            raise invalid(
                f"Input '{shown(name)}': expected {datatype} data in '{wanted}', got '{field}'."
            )
    data = getattr(contents, wanted)
    if datatype == "BYTES":
        return from_items(name, shape, list(data))
    return from_values(name, datatype, shape, list(data))


def render(inference: Inference, *, name: str, request_id: str, raw: bool) -> Any:
    """Write an answer: raw, or in typed contents where no datatype forbids it."""
    typed = not raw and all(tensor.datatype in CONTENTS for tensor in inference.outputs)
    answer = ModelInferResponse(
        model_name=name, model_version=inference.version or "1", id=request_id
    )
    for key, value in inference.parameters.items():
        put(answer.parameters[key], value=value)
    for tensor in inference.outputs:
        output = answer.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.data.shape
        )
        if typed:
            flat = tensor.data.ravel().tolist()
            getattr(output.contents, CONTENTS[tensor.datatype]).extend(flat)
        else:
            answer.raw_output_contents.append(bytes(to_bytes(tensor)))
    return answer


def put(parameter: Any, *, value: Value) -> None:
    """Set an InferParameter."""
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    setattr(parameter, kinds[type(value)], value)


def size_of(request: Any) -> int:
    """Return how much there is to decode, in bytes of JSON that would take as long.

    Raw data isn't looked at: taking it out of the message is a copy, so what is said of it counts.
    """
    raw = bool(request.raw_input_contents)
    return sum(_size_of(given, raw=raw) for given in request.inputs[: MAX_TENSORS + 1])


def _size_of(given: Any, *, raw: bool) -> int:
    """No more of a shape is read than it may have: a million sizes' product takes minutes."""
    if raw:
        item = RAW_ITEM if given.datatype == "BYTES" else 1
        return TENSOR + item * int(prod(given.shape[:MAX_RANK]))
    field = CONTENTS.get(given.datatype)
    return TENSOR + VALUE * (0 if field is None else len(getattr(given.contents, field)))


def is_typed(request: Any) -> bool:
    """Say whether a request's tensors stand in typed contents: then its answer's do, too."""
    return bool(request.inputs) and not request.raw_input_contents
