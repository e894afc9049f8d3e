"""Whether requests can be computed together: found out with random numbers, before any request.

A free first axis doesn't say that its rows are independent: a softmax or a mean over it is as
free. So two sets of rows are computed apart and together, and must come out the same.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.tensors import DTYPES, TensorSpec
from rayserve_platform.runtimes.openvino.lanes import Requester

log = logging.getLogger("rayserve.openvino")

SIZES = (8, 64, 1, 224)
"""What free axes but the first are tried with, until the model can compute it."""

TOLERANCES = {"f32": 1e-3}
ROUGH = 3e-2
"""Largest difference, relative to the largest number: batches are added up in another order, and
16-bit numbers round more."""


def independent(
    requester: Requester,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    precision: str,
) -> bool:
    """Say whether rows of different requests may be computed together; needs a few inferences."""
    specs = (*inputs, *outputs)
    if not inputs or any(not spec.shape or spec.shape[0] != -1 for spec in specs):
        return False
    places = range(len(outputs))
    generator = np.random.default_rng(0)
    for size in SIZES:
        one = [_random(spec, 1, size, generator) for spec in inputs]
        two = [_random(spec, 2, size, generator) for spec in inputs]
        try:
            apart = [requester(one, places), requester(two, places)]
        except RuntimeError:
            continue  # such sizes are none for this model
        try:
            both = [np.concatenate(pair) for pair in zip(one, two, strict=True)]
            together = requester(both, places)
        except RuntimeError:
            return False
        tolerance = TOLERANCES.get(precision, ROUGH)
        return all(
            _same(first, second, whole, tolerance)
            for first, second, whole in zip(*apart, together, strict=True)
        )
    log.info("no trial of batching was possible; 'batching: on' computes requests together")
    return False


def _random(spec: TensorSpec, rows: int, size: int, generator: np.random.Generator) -> NDArray[Any]:
    shape = (rows, *(size if axis == -1 else axis for axis in spec.shape[1:]))
    if spec.datatype == "BYTES":
        return generator.choice(np.array([b"a", b"bc"], np.object_), shape)
    if spec.datatype == "BF16":
        numbers = generator.normal(size=shape).astype(np.float32)
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    dtype = DTYPES[spec.datatype]
    if dtype.kind == "f":
        return generator.normal(size=shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)


def _same(one: NDArray[Any], two: NDArray[Any], together: NDArray[Any], tolerance: float) -> bool:
    """Say whether three rows together are what one and two of them are apart."""
    if not one.shape[1:] == two.shape[1:] == together.shape[1:]:
        return False
    if (len(one), len(two), len(together)) != (1, 2, 3):
        return False
    apart = np.concatenate([one, two])
    if apart.dtype.kind != "f":
        return bool(np.array_equal(apart, together))
    finite = apart[np.isfinite(apart)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    near = np.allclose(apart, together, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
    return bool(near)
