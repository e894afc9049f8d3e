"""Formats that torch loads become OpenVINO IR, once, in a process of its own."""

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.cache import WAIT_LIMIT_S, cache_root, made_once
from rayserve_platform.formats.gguf import QUIET
from rayserve_platform.formats.graph import Format, Graph
from rayserve_platform.formats.weights import unusable, weight_files
from rayserve_platform.settings.openvino import Declared

log = logging.getLogger("rayserve.openvino")

CONVERTER = 1
"""Part of every entry's name. Raise it when the conversion writes something else than before."""

LIMIT_S = WAIT_LIMIT_S
"""How long a conversion may take: as long as others wait for it. Large models take minutes."""

SAFELY = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
"""torch.export.load falls back on unpickling anything (torch 2.13,
`_export/serde/serialize.py`, `deserialize_torch_artifact`); with this it can't."""


def converted(graph: Graph, inputs: Mapping[str, Declared]) -> Path:
    """Return the IR of a model, converting it unless that was done before.

    Raises:
        PlatformError: INVALID_ARGUMENT if the model can't be converted, or its inputs have to be
            declared; UNAVAILABLE if the cache can't be written.
    """
    if graph.format is Format.TORCHSCRIPT and not inputs:
        raise unusable(
            "a TorchScript file doesn't say what its inputs are; declare them in 'inputs': "
            "NAME: {datatype: FP32, shape: [-1, 3]}, in the order of its forward method"
        )
    if find_spec("torch") is None:
        raise unusable(
            f"{graph.format} needs torch to be converted: pip install 'rayserve-platform[torch]'"
        )
    order = {
        "format": graph.format.value,
        "path": str(graph.path),
        "inputs": {name: declared.model_dump() for name, declared in inputs.items()},
    }
    name = _entry_name(graph, order)
    make = functools.partial(_convert, order)
    return made_once(cache_root() / "openvino-ir", name, make, report=_report) / "model.xml"


def _entry_name(graph: Graph, order: Mapping[str, object]) -> str:
    """Name a model's cache entry after all that decides on the graph."""
    libraries = ["openvino", "torch"]
    files = [graph.path]
    if graph.format is Format.TRANSFORMERS:
        libraries.append("transformers")
        weights = weight_files(graph.path, allow_pickle=False)
        files = [*sorted(graph.path.rglob("*.json")), *weights]
    recipe = [order["format"], order["inputs"], [importlib.metadata.version(n) for n in libraries]]
    digest = hashlib.sha256(json.dumps(recipe).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", graph.path.stem)[:60]
    return f"{stem}-{digest.hexdigest()[:20]}-v{CONVERTER}"


def _convert(order: Mapping[str, object], directory: Path) -> None:
    """Convert in a process of its own: torch never loads in the one that serves."""
    command = [sys.executable, "-m", "rayserve_platform.runtimes.openvino.to_ir"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps({**order, "out": str(directory / "model.xml")}).encode(),
            capture_output=True,
            env=os.environ | QUIET | SAFELY,
            check=False,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        message = f"converting the {order['format']} model to OpenVINO took over {LIMIT_S:.0f} s"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source") from error
    if done.returncode != 0:
        log.error("converting failed: %s", done.stderr.decode(errors="replace"))
        message = f"the {order['format']} model can't be converted to OpenVINO; the log says why"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source")


def _report(phase: str, fraction: float) -> None:  # noqa: ARG001 - a log has no bar to fill
    log.info("model: %s", phase)
