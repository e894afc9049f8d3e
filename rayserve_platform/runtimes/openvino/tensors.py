"""Between the vocabulary's tensors and OpenVINO's, without copies where the memory allows it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.formats.weights import unusable

ELEMENTS: dict[str, Any] = {
    "BOOL": ov.Type.boolean,
    "UINT8": ov.Type.u8,
    "UINT16": ov.Type.u16,
    "UINT32": ov.Type.u32,
    "UINT64": ov.Type.u64,
    "INT8": ov.Type.i8,
    "INT16": ov.Type.i16,
    "INT32": ov.Type.i32,
    "INT64": ov.Type.i64,
    "FP16": ov.Type.f16,
    "BF16": ov.Type.bf16,
    "FP32": ov.Type.f32,
    "FP64": ov.Type.f64,
    "BYTES": ov.Type.string,
}
"""OpenVINO's element type of each datatype."""


WHOLE = (-(2**31), 2**31 - 1, "in 32 bits")
FLOAT = (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max), "as FP32")
BOUNDS: dict[str, tuple[float, float, str]] = {
    "INT64": WHOLE,
    "UINT64": WHOLE,
    "UINT32": WHOLE,
    "FP64": FLOAT,
}
"""Datatypes that OpenVINO's devices compute as smaller ones, and what fits (2026.4.1)."""


def check_fits(array: NDArray[Any], spec: TensorSpec) -> None:
    """Refuse numbers that would silently be computed as others.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the input and the number.
    """
    if spec.datatype not in BOUNDS or not array.size:
        return
    lowest, highest, how = BOUNDS[spec.datatype]
    if array.dtype.kind == "f":  # NaN stays NaN, and these pass it over
        least, most = np.fmin.reduce(array, None).item(), np.fmax.reduce(array, None).item()
    else:
        least, most = array.min().item(), array.max().item()
    if least < lowest or most > highest:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"Input '{spec.name}' holds {most if most > highest else least}: OpenVINO computes "
            f"{spec.datatype} {how}, so it takes numbers from {lowest} to {highest}.",
            param=spec.name,
        )


class _Writable:
    """Lends an array's memory as if it could be written, which OpenVINO asks of what it reads."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        described = array.__array_interface__
        self.__array_interface__ = {**described, "data": (described["data"][0], False)}


def to_openvino(array: NDArray[Any], datatype: str) -> Any:
    """Return a tensor over the array's own memory; over a copy where that is not contiguous.

    The tensor keeps the array or the copy; nothing of OpenVINO's keeps the tensor.
    """
    if datatype == "BYTES":
        tensor = ov.Tensor(ov.Type.string, ov.Shape(array.shape))
        if array.size:
            tensor.str_data = array.ravel().tolist()  # it takes no scalar
        return tensor
    if not (array.flags.c_contiguous and array.flags.aligned and array.size):
        array = np.array(array, order="C")  # ascontiguousarray would make one axis of none
    elif not array.flags.writeable:
        array = np.asarray(_Writable(array))
    if datatype == "BF16":
        return ov.Tensor(array, ov.Shape(array.shape), ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)


def to_array(tensor: Any, datatype: str) -> NDArray[Any]:
    """Return a copy: the tensor's memory belongs to a request that is used again."""
    if datatype == "BYTES":
        made = np.empty(tuple(tensor.shape), np.object_)
        if made.size:  # reading none ends the process (OpenVINO 2026.4.1)
            made[...] = tensor.bytes_data
        return made
    data = tensor.data
    return np.array(data.view(np.uint16) if datatype == "BF16" else data)


def specs(ports: Sequence[Any], what: str) -> tuple[TensorSpec, ...]:
    """Return what a model says of its inputs or outputs.

    Raises:
        PlatformError: INVALID_ARGUMENT for an element type that no request can carry.
    """
    names = {element: name for name, element in ELEMENTS.items()}
    made = []
    for port in ports:
        element = port.get_element_type()
        if element not in names:
            raise unusable(
                f"{what} '{port.any_name}' is of the type {element.get_type_name()}, "
                "which the Open Inference Protocol has no name for"
            )
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic:
            raise unusable(
                f"{what} '{port.any_name}' has no known number of axes; give it a 'shape'"
            )
        made.append(
            TensorSpec(
                name=port.any_name,
                datatype=names[element],
                shape=tuple(-1 if d.is_dynamic else d.get_length() for d in shape),
            )
        )
    return tuple(made)
