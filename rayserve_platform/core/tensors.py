"""Named tensors: the request that carries them, its answer, and what a model says of its own.

Datatypes bear the Open Inference Protocol's names. Two of them have no numpy type of their own:
BF16 travels as its bits in uint16, BYTES as an object array of `bytes`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.uint16),
    "BYTES": np.dtype(np.object_),
}
"""The type of `Tensor.data` for each datatype."""
DATATYPES: dict[np.dtype[Any], str] = {
    dtype: name for name, dtype in DTYPES.items() if name != "BF16"
}
"""The datatype of an array; of uint16 it is UINT16, since the bits of BF16 look the same."""

Value = bool | int | float | str
Parameters = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A named tensor. `data` holds the shape, and is of the type `DTYPES` gives the datatype.

    It may be read-only and may share the request's memory: a runtime that writes must copy.
    """

    name: str
    datatype: str
    data: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Infer:
    """Run the model on named tensors; `outputs` names those wanted, empty for all."""

    model: str
    inputs: tuple[Tensor, ...]
    version: str | None = None
    outputs: tuple[str, ...] = ()
    parameters: Parameters = field(default_factory=dict)
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What `Infer` answers: the outputs that were asked for, in that order, or all."""

    model: str
    outputs: tuple[Tensor, ...]
    version: str | None = None
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a model says of one of its tensors; -1 stands for a size that each request chooses."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Say whether a tensor may have this shape."""
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )


class VersionState(StrEnum):
    """Where a version is in its life; TensorFlow Serving's names, which OVMS took over."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One version of a model.

    Args:
        version: its number, as the name of its folder.
        reason: why it is not available, where it failed; for clients, so without paths.
        inputs: its tensors, once it has been loaded.
    """

    version: str
    state: VersionState = VersionState.AVAILABLE
    reason: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


def chosen(versions: Sequence[ModelVersion], version: str | None, model: str) -> ModelVersion:
    """Return the version that is asked for, or the highest available one.

    Raises:
        PlatformError: NOT_FOUND where there is no such version; UNAVAILABLE where it can't serve.
    """
    able = [v for v in versions if v.state is VersionState.AVAILABLE]
    if not version:
        if able:
            return max(able, key=_number)
        raise PlatformError(
            Code.UNAVAILABLE, f"The model '{model}' has no available version.", param="model"
        )
    for found in versions:
        if found.version == version:
            if found.state is VersionState.AVAILABLE:
                return found
            reason = f": {found.reason}" if found.reason else ""
            raise PlatformError(
                Code.UNAVAILABLE,
                f"Version '{version}' of the model '{model}' is not available "
                f"({found.state}{reason}).",
                param="model_version",
            )
    known = ", ".join(v.version for v in sorted(able, key=_number)) or "none"
    raise PlatformError(
        Code.NOT_FOUND,
        f"The model '{model}' has no version '{version[:64]}'. Available: {known}.",
        param="model_version",
    )


def _number(version: ModelVersion) -> tuple[int, str]:
    """Order versions by number, whatever is no number below."""
    text = version.version
    return (int(text) if text.isdecimal() else -1, text)


def check(request: Infer, version: ModelVersion) -> None:
    """Refuse inputs and outputs that a version does not have.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the tensor, what is expected and what came.
    """
    given = {tensor.name: tensor for tensor in request.inputs}
    if len(given) != len(request.inputs):
        twice, _ = Counter(tensor.name for tensor in request.inputs).most_common(1)[0]
        raise _invalid(f"Input '{twice[:200]}' is given more than once.")
    wanted = {spec.name: spec for spec in version.inputs}
    for name in given:
        if name not in wanted:
            raise _invalid(f"Unknown input '{name[:200]}'; expected {_list(wanted)}.")
    for name, spec in wanted.items():
        if name not in given:
            raise _invalid(f"Input '{name}' is missing; expected {_list(wanted)}.")
        _check_tensor(given[name], spec)
    known = {spec.name: spec for spec in version.outputs}
    for name in request.outputs:
        if name not in known:
            raise _invalid(f"Unknown output '{name[:200]}'; expected {_list(known)}.", "outputs")


def _check_tensor(tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.datatype != spec.datatype:
        raise _invalid(
            f"Input '{spec.name}': expected datatype {spec.datatype}, got {tensor.datatype}."
        )
    if not spec.fits(tensor.data.shape):
        raise _invalid(
            f"Input '{spec.name}': expected shape {list(spec.shape)}, "
            f"got {list(tensor.data.shape)}."
        )


def _list(names: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _invalid(message: str, param: str = "inputs") -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, message, param=param)
