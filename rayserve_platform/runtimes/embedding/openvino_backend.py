"""The OpenVINO backend: the default on CPUs."""

import functools
import hashlib
import importlib.metadata
import json
import logging
import queue
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.cache import cache_root, made_once
from rayserve_platform.formats.gguf import QUIET
from rayserve_platform.formats.progress import Report
from rayserve_platform.formats.sentence_transformers import Encoder
from rayserve_platform.runtimes.embedding.backend import Ids, Result

log = logging.getLogger("rayserve.embedding")

CONVERTER = 1
"""Part of every entry's name. Raise it when the conversion writes something else than before."""

LANES_LIMIT = 4
"""Most calls side by side: more would only make each text wait longer."""

TWO_COPIES_BYTES = 512 * 2**20
"""Largest model of which a second, compiled copy is kept for calls side by side. Larger ones keep
all threads busy with one text, and their memory is dear."""

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Names in /proc/cpuinfo of what makes int8 faster than float32."""


class OpenVINOBackend:
    """A model compiled for the CPU: once for calls that have it alone, once for calls side by side.

    One call on all threads answers a single text soonest; of many texts, calls side by side on
    their own threads compute more in the same time (two cores, all-MiniLM-L6-v2, 24 tokens a text:
    one text 436/s against 209/s, batches of 8 and more 757/s against 706/s).

    Args:
        file: the model's graph, made by `convert`.
        precision: `float32`, `bfloat16` or `int8`.
        threads: of computation.
        model: the file's graph, where it has been read already.
    """

    call_tokens = 16

    def __init__(self, file: Path, *, precision: str, threads: int, model: Any = None) -> None:
        if model is None:
            model = ov.Core().read_model(file)
        options = _options(precision, threads)
        small = file.with_suffix(".bin").stat().st_size <= TWO_COPIES_BYTES
        self.lanes = min(threads, LANES_LIMIT) if small else 1
        self._segments = len(model.inputs) > 2
        self._wide = _Requests(model, options | {"NUM_STREAMS": "1"}, 1)
        self._narrow = self._wide
        if self.lanes > 1:
            narrow = options | {"NUM_STREAMS": str(self.lanes)}
            self._narrow = _Requests(model, narrow, self.lanes)

    def run(self, ids: Ids, mask: Ids, segments: Ids, *, alone: bool) -> Result:
        """Compute; the result is a copy, since a request's own memory is used again."""
        given = [ids, mask, segments] if self._segments else [ids, mask]
        with (self._wide if alone else self._narrow).one() as request:
            # Not infer(): with one thread it hides failures, and the numbers would be those of the
            # texts before (OpenVINO 2026.4.1).
            request.start_async(given, share_inputs=True)
            request.wait()
            return np.array(request.get_output_tensor(0).data, np.float32)

    def close(self) -> None:
        """Release the model's memory."""
        del self._wide, self._narrow


class _Requests:
    """A compiled model, and as many of its requests as run side by side."""

    def __init__(self, model: Any, options: dict[str, str], count: int) -> None:
        compiled = ov.Core().compile_model(model, "CPU", options)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(compiled.create_infer_request())

    @contextmanager
    def one(self) -> Iterator[Any]:
        """Take a request that nobody else uses."""
        request = self._free.get()
        try:
            yield request
        finally:
            self._free.put(request)


def _options(precision: str, threads: int) -> dict[str, str]:
    return {
        "INFERENCE_NUM_THREADS": str(threads),
        # Replicas of one node would be pinned to the same cores.
        "ENABLE_CPU_PINNING": "NO",
        # OpenVINO computes in bfloat16 wherever the processor can, unless it is told.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
    } | ({"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"} if precision == "int8" else {})


def can_int8(cpuinfo: str) -> bool:
    """Whether a processor (the text of /proc/cpuinfo) computes int8 faster than float32."""
    return not INT8_FLAGS.isdisjoint(cpuinfo.split())


def converted(encoder: Encoder, *, precision: str, segments: bool, report: Report) -> Path:
    """Return the graph of a model, converting it unless that was done before.

    Raises:
        PlatformError: UNAVAILABLE if the cache can't be written, INTERNAL if the model can't be
            converted; the log says why.
    """
    make = functools.partial(_convert, encoder, precision, segments)
    name = entry_name(encoder, precision, segments=segments)
    return made_once(cache_root() / "openvino", name, make, report=report) / "model.xml"


def entry_name(encoder: Encoder, precision: str, *, segments: bool) -> str:
    """Name a model's cache entry after all that decides on the graph."""
    recipe = [
        encoder.pooling,
        encoder.activation,
        [(type(step).__name__, getattr(step, "activation", "")) for step in encoder.head],
        precision,
        segments,
        [importlib.metadata.version(name) for name in ("openvino", "torch", "transformers")],
    ]
    digest = hashlib.sha256(json.dumps(recipe).encode())
    for path in encoder.files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", encoder.transformer.parent.name)[:60]
    return f"{stem}-{digest.hexdigest()[:20]}-v{CONVERTER}"


def _convert(encoder: Encoder, precision: str, segments: bool, directory: Path) -> None:  # noqa: FBT001
    """Convert in a process of its own, so that torch never loads in the one that serves."""
    import os
    import pickle

    command = [sys.executable, "-m", "rayserve_platform.runtimes.embedding.to_openvino"]
    order = pickle.dumps((encoder, directory, precision, segments))
    done = subprocess.run(
        command, input=order, capture_output=True, env=os.environ | QUIET, check=False
    )
    if done.returncode != 0:
        log.error("converting failed: %s", done.stderr.decode(errors="replace"))
        message = "the model can't be converted to OpenVINO; the log says why"
        raise PlatformError(Code.INTERNAL, message, param="source")
