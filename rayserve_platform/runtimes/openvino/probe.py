"""Whose fault a failed inference is: the model computes again what it could compute before.

If it can, the engine works and the failure is the request's own: of a shape or of numbers that the
model can't take, whatever its metadata says. If it can't, no request is at fault.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import DTYPES, TensorSpec
from rayserve_platform.runtimes.openvino.lanes import Requester

log = logging.getLogger("rayserve.openvino")

SIZES = (1, 8, 64, 224)
"""What free axes are tried with, until the model can compute it."""
VALUES = (1, 0)
LEARNED_BYTES = 2**20
"""Largest request that is kept."""


class Probe:
    """Inputs that are known to be good: equal numbers, or else the first request that was computed.

    Args:
        requester: tries them, now.
        inputs: what they must be.
    """

    def __init__(self, requester: Requester, inputs: Sequence[TensorSpec]) -> None:
        self._inputs = inputs
        self._good = _good(requester, inputs)

    def learn(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Keep inputs that were computed, if there are none yet and these are small."""
        if self._good is None and sum(array.nbytes for array in arrays) <= LEARNED_BYTES:
            self._good = [array.copy() for array in arrays]

    def blame(self, requester: Requester, arrays: Sequence[NDArray[Any]]) -> PlatformError | None:
        """Say what is wrong with inputs that failed, or None if the engine is at fault.

        A model that has computed nothing yet is given the benefit of the doubt.
        """
        if self._good is not None and not _computes(requester, self._good):
            return None
        shapes = ", ".join(
            f"'{spec.name}' {list(array.shape)}"
            for spec, array in zip(self._inputs, arrays, strict=True)
        )
        return PlatformError(
            Code.INVALID_ARGUMENT,
            f"The model can't compute these inputs, for their shapes or their values: "
            f"{shapes[:1000]}.",
            param="inputs",
        )


def _good(requester: Requester, inputs: Sequence[TensorSpec]) -> list[NDArray[Any]] | None:
    free = any(-1 in spec.shape for spec in inputs)
    for size in SIZES if free else SIZES[:1]:
        for value in VALUES:
            arrays = [_equal(spec, size, value) for spec in inputs]
            if _computes(requester, arrays):
                return arrays
    log.info("the model computes neither ones nor zeros; its first request will be its measure")
    return None


def _equal(spec: TensorSpec, size: int, value: int) -> NDArray[Any]:
    shape = [size if axis == -1 else axis for axis in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, b"a" * value, np.object_)
    return np.full(shape, value, DTYPES[spec.datatype])


def _computes(requester: Requester, arrays: Sequence[NDArray[Any]]) -> bool:
    try:
        requester(arrays, (0,))
    except Exception:  # noqa: BLE001  # whatever the engine raises
        return False
    return True
