"""One version of a model, compiled and ready."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.formats.graph import detect
from rayserve_platform.runtimes.openvino.lanes import Arrays, Lanes, Requester
from rayserve_platform.runtimes.openvino.probe import Probe
from rayserve_platform.runtimes.openvino.quick import Quick, is_quick
from rayserve_platform.runtimes.openvino.read import map_exceptions, read
from rayserve_platform.runtimes.openvino.tensors import check_fits, specs, to_array, to_openvino
from rayserve_platform.runtimes.openvino.trial import independent
from rayserve_platform.settings.openvino import OpenVINOEngine, OpenVINOModel

log = logging.getLogger("rayserve.openvino")

SUB_GRAPHS = frozenset({"If", "Loop", "TensorIterator"})
"""Operations with graphs of their own, whose work may follow from a request's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """See the module."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    lanes: Lanes | Quick
    batched: bool


class _Request:
    """One of OpenVINO's inference requests, behind arrays.

    Args:
        here: compute in the thread that calls, which saves a tiny model much of its time. Not for
            a graph that fails on some of its inputs: with one thread, infer() returns then as if
            all were well, and the outputs are those of the request before (OpenVINO 2026.4.1).
        copied: places of inputs that must be copied, see `passed_on`.
    """

    def __init__(
        self,
        compiled: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        here: bool = False,
        copied: frozenset[int] = frozenset(),
    ) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = inputs
        self._outputs = outputs
        self._here = here
        self._copied = copied

    def __call__(self, inputs: Sequence[NDArray[Any]], outputs: Sequence[int], /) -> Arrays:
        """Compute; the arrays are read where they lie."""
        for array, spec in zip(inputs, self._inputs, strict=True):
            check_fits(array, spec)
        # A request keeps no tensor of these alive, and some own the copy that they lie over.
        tensors = [
            to_openvino(array, spec.datatype)
            for array, spec in zip(inputs, self._inputs, strict=True)
        ]
        for place, tensor in enumerate(tensors):
            if place in self._copied:
                tensor.copy_to(self._request.get_input_tensor(place))
            else:
                self._request.set_input_tensor(place, tensor)
        if self._here:
            self._request.infer()
        else:
            self._request.start_async()
            self._request.wait()
        return [
            to_array(self._request.get_output_tensor(place), self._outputs[place].datatype)
            for place in outputs
        ]


def passed_on(model: Any) -> frozenset[int]:
    """Return the places of inputs that come out again, at most converted.

    Where such a conversion changes nothing, the CPU's plugin lends the output an input's memory
    and writes the next request's output there (OpenVINO 2026.4.1).
    """
    places: set[int] = set()
    for result in model.get_results():
        node = result
        while node.get_type_name() in {"Result", "Convert"}:
            node = node.input_value(0).get_node()
        if node.get_type_name() == "Parameter":
            places.add(model.get_parameter_index(node))
    return frozenset(places)


def load(path: Path, settings: OpenVINOModel, engine: OpenVINOEngine, threads: int) -> Loaded:
    """Load a version's files; blocks.

    Raises:
        PlatformError: INVALID_ARGUMENT saying what is wrong with it.
    """
    began = time.monotonic()
    core = ov.Core()
    # A file that is mapped must not be written, and a new version is often written over an old one.
    core.set_property({"ENABLE_MMAP": False})
    graph = detect(path)
    model = read(core, graph, settings)
    inputs, outputs = specs(model.inputs, "input"), specs(model.outputs, "output")
    with map_exceptions(f"the model can't be compiled for {engine.device}"):
        # AUTO and its like come to the CPU by themselves, and pass nothing of their own on.
        core.set_property("CPU", reserved(engine, threads))
        compiled = core.compile_model(model, engine.device, properties(engine, threads))
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        copied = passed_on(model)
        requests: list[Requester] = [
            _Request(compiled, inputs, outputs, copied=copied) for _ in range(count)
        ]
    batched = _batched(requests[0], inputs, outputs, engine)
    max_rows = engine.max_batch_size if batched else 0
    quick = _quick(core, model, requests[0], engine, max_rows=max_rows)
    log.info(
        "%s model ready on %s in %.1f s, %s, %s",
        graph.format,
        engine.device,
        time.monotonic() - began,
        "in the event loop" if quick else f"{count} side by side",
        f"up to {max_rows} rows together" if batched else "requests one by one",
    )
    lanes = _lanes(requests, inputs, engine, max_rows=max_rows)
    served = Quick(lanes, quick, max_rows=max_rows) if quick else lanes
    return Loaded(inputs=inputs, outputs=outputs, lanes=served, batched=batched)


def _lanes(
    requests: Sequence[Requester],
    inputs: Sequence[TensorSpec],
    engine: OpenVINOEngine,
    *,
    max_rows: int,
) -> Lanes:
    return Lanes(
        requests,
        max_rows=max_rows,
        max_delay_s=engine.max_delay_ms / 1000,
        max_queued=engine.max_queued,
        retry_after_s=engine.retry_after_s,
        probe=Probe(requests[0], inputs),
    )


def properties(engine: OpenVINOEngine, threads: int) -> dict[str, Any]:
    """Return OpenVINO's properties of an engine; the plugin's own config wins."""
    kind = engine.device.partition(":")[0].upper()
    made: dict[str, Any] = {}
    if kind == "CPU":
        made = reserved(engine, threads)
        if engine.streams is not None or engine.performance_hint is None:
            made["NUM_STREAMS"] = engine.streams or 1
    hint = engine.performance_hint or (None if kind == "CPU" else "latency")
    if hint is not None:
        made["PERFORMANCE_HINT"] = hint.upper()
    if engine.precision != "dynamic":
        made["INFERENCE_PRECISION_HINT"] = engine.precision
    if engine.cache_dir is not None:
        made["CACHE_DIR"] = str(Path(engine.cache_dir).expanduser().absolute())
    return made | engine.plugin_config


def reserved(engine: OpenVINOEngine, threads: int) -> dict[str, Any]:
    """Return the properties that keep a CPU to the cores that the replica has reserved."""
    # Replicas of one node would be pinned to the same cores.
    return {"INFERENCE_NUM_THREADS": engine.threads or threads, "ENABLE_CPU_PINNING": False}


def _quick(
    core: Any, model: Any, request: Requester, engine: OpenVINOEngine, *, max_rows: int
) -> Requester | None:
    """Return what computes a small model in the event loop, or None for one that needs threads."""
    plain = engine.device.upper() == "CPU" and engine.performance_hint in {None, "latency"}
    inputs, outputs = specs(model.inputs, "input"), specs(model.outputs, "output")
    if (
        not plain
        or engine.max_delay_ms
        or engine.streams is not None
        or SUB_GRAPHS & {op.get_type_name() for op in model.get_ops()}
        or not _sizes_are_known(model)
        or not is_quick(request, inputs, max_rows=max_rows)
    ):
        return None
    alone = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    with map_exceptions(f"the model can't be compiled for {engine.device}"):
        compiled = core.compile_model(model, engine.device, properties(engine, 1) | alone)
        small = _Request(compiled, inputs, outputs, here=True, copied=passed_on(model))
    return small if is_quick(small, inputs, max_rows=max_rows) else None


def _sizes_are_known(model: Any) -> bool:
    """Say whether every size in a graph follows from the number of rows alone.

    Such a graph fails on no request: neither its shape nor its numbers change what fits.
    """
    graph = model.clone()
    shapes = {}
    for port in graph.inputs:
        shape = port.get_partial_shape()
        if len(shape) and shape[0].is_dynamic:
            shape[0] = ov.Dimension(1)
        if shape.is_dynamic:
            return False
        shapes[port] = shape
    graph.reshape(shapes)
    return all(
        output.get_partial_shape().is_static for op in graph.get_ops() for output in op.outputs()
    )


def _batched(
    request: Requester,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    engine: OpenVINOEngine,
) -> bool:
    if engine.batching == "off" or engine.max_batch_size == 1:
        return False
    if engine.batching == "auto":
        return independent(request, inputs, outputs, engine.precision)
    fixed = [s.name for s in (*inputs, *outputs) if not s.shape or s.shape[0] != -1]
    if fixed:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"batching: 'on' needs a free first axis, and '{fixed[0]}' has none; "
            "'batch_size: auto' may free it",
            param="openvino.batching",
        )
    return True
