"""The JSON of an inference request, checked by hand: this path is too hot for a framework.

Source: Open Inference Protocol, `inference_rest.md`, and its binary tensor data extension. Keys
that are not the protocol's are ignored: clients send `model_name` in the body, and more.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.tensors import Value
from rayserve_platform.protocols.kserve.tensors import (
    Buffer,
    check_count,
    check_shape,
    check_type,
    invalid,
    shown,
    written,
)

BINARY_SIZE = "binary_data_size"
BINARY_OUTPUT = "binary_data_output"
BINARY = "binary_data"
SEQUENCE = frozenset({"sequence_id", "sequence_start", "sequence_end"})
SHARED_MEMORY = "shared_memory_region"


@dataclass(slots=True, kw_only=True)
class Given:
    """One input. Its values are in `data`, or in the next `size_bytes` behind the JSON.

    With neither, all that stands behind the JSON is its own: OVMS lets the size of a single binary
    input be left out.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | None
    size_bytes: int | None


@dataclass(slots=True, kw_only=True)
class Body:
    """A request.

    Args:
        outputs: those wanted, by name, each with whether it is wanted in binary; empty for all.
        binary: whether an output is binary that does not say so itself.
    """

    id: str
    parameters: dict[str, Value]
    inputs: list[Given]
    outputs: dict[str, bool] = field(default_factory=dict)
    binary: bool = False


def load(text: Buffer) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        PlatformError: INVALID_ARGUMENT, also for NaN and Infinity, which are no JSON.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise invalid(f"The request body is not valid JSON: {error}.", "body") from None
    if type(document) is not dict:
        raise invalid("The request body must be a JSON object.", "body")
    return document


def read(text: Buffer) -> Body:
    """Parse and check a request."""
    document = load(text)
    parameters = values(document.get("parameters"), "parameters")
    binary = parameters.pop(BINARY_OUTPUT, False)
    if type(binary) is not bool:
        raise invalid(f"The parameter '{BINARY_OUTPUT}' must be true or false.", "parameters")
    inputs = document.get("inputs")
    if type(inputs) is not list:
        raise invalid("'inputs' is required: a list of tensors.")
    check_count(len(inputs), "inputs")
    return Body(
        id=read_id(document),
        parameters=parameters,
        inputs=[_input(item, index) for index, item in enumerate(inputs)],
        outputs=_outputs(document.get("outputs"), binary),
        binary=binary,
    )


def read_id(document: dict[str, Any]) -> str:
    """Return the request's id, which its answer repeats; empty where there is none."""
    found = document.get("id")
    if found is None:
        return ""
    if type(found) is not str:
        raise invalid(f"'id' must be a string, got {written(found)}.", "id")
    return found


def values(found: Any, where: str) -> dict[str, Value]:
    """Check an object of parameters."""
    if found is None:
        return {}
    if type(found) is not dict:
        raise invalid(f"'{where}' must be an object.", where)
    for key, value in found.items():
        if type(value) not in (bool, int, float, str):
            raise invalid(
                f"The parameter '{shown(key)}' must be a number, a string, true or false.", where
            )
    refuse_unsupported(found)
    return found


def refuse_unsupported(parameters: dict[str, Any]) -> None:
    """Refuse what would change the answer and is not supported."""
    for key in SEQUENCE.intersection(parameters):
        if parameters[key]:
            raise invalid(f"'{key}': stateful models (sequences) are not supported.", "parameters")
    for key in (SHARED_MEMORY, "classification"):
        if key in parameters:
            raise invalid(f"The parameter '{key}' is not supported.", "parameters")


def _input(item: Any, index: int) -> Given:
    if type(item) is not dict:
        raise invalid(f"inputs[{index}] must be an object.")
    name = _text(item, "name", f"inputs[{index}]")
    where = f"Input '{shown(name)}'"
    datatype = _text(item, "datatype", where)
    check_type(name, datatype)
    shape = item.get("shape")
    if type(shape) is not list:
        raise invalid(f"{where}: 'shape' is required: a list of whole numbers.")
    parameters = item.get("parameters")
    size = None if parameters is None else values(parameters, "parameters").get(BINARY_SIZE)
    if size is not None and (type(size) is not int or size < 0):
        raise invalid(f"{where}: '{BINARY_SIZE}' must be a whole number of bytes.")
    data = item.get("data")
    if data is not None and size is not None:
        raise no_values(name)
    if data is not None and type(data) is not list:
        raise invalid(f"{where}: 'data' must be a list.")
    return Given(
        name=name,
        datatype=datatype,
        shape=check_shape(name, shape),
        data=data,
        size_bytes=size,
    )


def no_values(name: str) -> PlatformError:
    """Return the refusal of an input whose values are nowhere, or in two places."""
    return invalid(f"Input '{shown(name)}': give either 'data' or the parameter '{BINARY_SIZE}'.")


def _outputs(items: Any, binary: Any) -> dict[str, bool]:
    if items is None:
        return {}
    if type(items) is not list:
        raise invalid("'outputs' must be a list of objects.", "outputs")
    check_count(len(items), "outputs")
    wanted: dict[str, bool] = {}
    for index, item in enumerate(items):
        if type(item) is not dict:
            raise invalid(f"outputs[{index}] must be an object.", "outputs")
        name = _text(item, "name", f"outputs[{index}]", "outputs")
        how = values(item.get("parameters"), "parameters").get(BINARY, binary)
        if type(how) is not bool:
            raise invalid(f"Output '{shown(name)}': '{BINARY}' must be true or false.", "outputs")
        wanted[name] = how
    return wanted


def _text(item: dict[str, Any], key: str, where: str, param: str = "inputs") -> str:
    found = item.get(key)
    if type(found) is not str:
        got = "" if found is None else f", got {written(found)}"
        raise invalid(f"{where}: '{key}' is required: a string{got}.", param)
    return found
