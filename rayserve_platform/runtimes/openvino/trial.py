"""Whether requests can be computed together: found out with random numbers, before any request.

A free first axis doesn't say that its rows are independent: a softmax or a mean over it is as
free. So two sets of rows are computed apart and together, and must come out the same; and a trial
counts only if the rows came out different from one another, since of numbers that are always the
same nothing can be told.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.tensors import DTYPES, TensorSpec
from rayserve_platform.runtimes.openvino.lanes import Arrays, Requester

log = logging.getLogger("rayserve.openvino")

SIZES = (8, 64, 1, 224)
"""What free axes but the first are tried with, until the model can compute it."""

TRIALS = ((1.0, 0.5), (1.0, 0.5), (10.0, 0.1), *[(100.0, 0.02)] * 4)
"""Standard deviation of the numbers of each trial; of whole numbers, the share of those that are 1
and not 0, which are numbers of tokens, masks and categories alike. The last trials are for outputs
that have not differed yet, as a class that small numbers never change."""
LEAST_TRIALS = 2

TOLERANCES = {"f32": 1e-4}
ROUGH = 3e-2
"""Largest difference, relative to the largest number: batches are added up in another order, and
16-bit numbers round more. One scale for a whole batch, as of a dynamic quantization to 8 bits,
makes more than the first."""


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
    tolerance = TOLERANCES.get(precision, ROUGH)
    generator = np.random.default_rng(0)
    untold = set(range(len(outputs)))
    for count, (spread, ones) in enumerate(TRIALS):
        if count >= LEAST_TRIALS and not untold:
            break
        draw = functools.partial(_random, generator=generator, spread=spread, ones=ones)
        apart, together = _computed(requester, inputs, len(outputs), draw)
        if not together:
            return False
        if not all(map(_same, apart, together, [tolerance] * len(apart))):
            return False
        untold -= {place for place, rows in enumerate(apart) if _differ(rows)}
    if untold:
        log.info("a trial of batching told nothing; 'batching: on' computes requests together")
    return not untold


def _computed(
    requester: Requester,
    inputs: Sequence[TensorSpec],
    outputs: int,
    draw: Callable[[TensorSpec, int, int], NDArray[Any]],
) -> tuple[Arrays, Arrays]:
    """Return each output of three rows, computed apart (one and two of them) and together.

    Both are empty if the model can't compute them, or doesn't give as many rows as it was given.
    """
    places = range(outputs)
    for size in SIZES:
        one, two = ([draw(spec, rows, size) for spec in inputs] for rows in (1, 2))
        try:
            first, second = requester(one, places), requester(two, places)
        except RuntimeError:
            continue  # such sizes are none for this model
        try:
            both = [np.concatenate(pair) for pair in zip(one, two, strict=True)]
            together = requester(both, places)
        except RuntimeError:
            return [], []
        rows = {(len(a), len(b), len(c)) for a, b, c in zip(first, second, together, strict=True)}
        shapes_differ = any(a.shape[1:] != b.shape[1:] for a, b in zip(first, second, strict=True))
        if rows != {(1, 2, 3)} or shapes_differ:
            return [], []
        return [np.concatenate(pair) for pair in zip(first, second, strict=True)], together
    log.info("no trial of batching was possible; 'batching: on' computes requests together")
    return [], []


def _random(
    spec: TensorSpec,
    rows: int,
    size: int,
    *,
    generator: np.random.Generator,
    spread: float,
    ones: float,
) -> NDArray[Any]:
    shape = (rows, *(size if axis == -1 else axis for axis in spec.shape[1:]))
    if spec.datatype == "BYTES":
        return generator.choice(np.array([b"a", b"bc"], np.object_), shape)
    dtype = DTYPES[spec.datatype]
    if dtype.kind != "f" and spec.datatype != "BF16":
        return (generator.random(shape) < ones).astype(dtype)
    numbers = generator.normal(scale=spread, size=shape).astype(np.float32)
    if spec.datatype == "BF16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(dtype)


def _same(apart: NDArray[Any], together: NDArray[Any], tolerance: float) -> bool:
    """Say whether rows are the same numbers, as far as they can be."""
    if apart.shape != together.shape:
        return False
    if apart.dtype.kind != "f":
        return bool(np.array_equal(apart, together))
    finite = apart[np.isfinite(apart)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    near = np.allclose(apart, together, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
    return bool(near)


def _differ(rows: NDArray[Any]) -> bool:
    """Say whether any row is another than the first; those that are no numbers say nothing."""
    first, others = rows[:1], rows[1:]
    differ = first != others
    if rows.dtype.kind == "f":
        differ &= np.isfinite(first) & np.isfinite(others)
    return bool(differ.any())
