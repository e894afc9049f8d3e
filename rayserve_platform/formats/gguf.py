"""GGUF files: one quantized model in one file, as llama.cpp reads it.

The engines here read Hugging Face directories, so a GGUF file is converted once and kept.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.cache import cache_root, made_once
from rayserve_platform.formats.progress import Report

logger = logging.getLogger(__name__)

Convert = Callable[[Path, Path, Report], None]
"""Fills the directory (second) from the GGUF file (first)."""

CONVERTER = 1
"""Part of every entry's name. Raise it when the conversion writes something else than before."""

DIGESTED_BYTES = 1 << 20
"""Read at each end of a file to tell it from others.

The head of a GGUF file is its metadata, the tail its last weights, and the size is compared too;
hashing all of a large model would delay every start by minutes."""

QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""The converter's environment: no GPU, no network, no bars of its own."""


def to_directory(file: Path, *, convert: Convert, report: Report) -> Path:
    """Return the Hugging Face directory of a GGUF file, converting it unless that was done before.

    Raises:
        PlatformError: INVALID_ARGUMENT if the file is no readable GGUF file, UNAVAILABLE if the
            cache can't be written or a package is missing, INTERNAL if the conversion fails.
    """
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        message = f"{file.name} can't be read ({os.strerror(error.errno or 0)})"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source") from error
    if magic != b"GGUF":  # ggml-org/ggml docs/gguf.md, "File Structure"
        message = f"{file.name} is not a GGUF file: it does not begin with 'GGUF'"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source")
    return made_once(
        cache_root() / "models",
        entry_name(file),
        lambda directory: convert(file, directory, report),
        report=report,
    )


def entry_name(file: Path) -> str:
    """Name a file's cache entry after the file and whatever converts it."""
    library = importlib.metadata.version("transformers") if find_spec("transformers") else "none"
    return f"{name_of(file)}-v{CONVERTER}-transformers-{library}"


def name_of(file: Path) -> str:
    """Name a file after its own name and its content."""
    digest = hashlib.sha256(str(file.stat().st_size).encode())
    with file.open("rb") as opened:
        digest.update(opened.read(DIGESTED_BYTES))
        opened.seek(max(0, file.stat().st_size - DIGESTED_BYTES))
        digest.update(opened.read())
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", file.stem)
    return f"{stem}-{digest.hexdigest()[:16]}"


def convert(file: Path, directory: Path, report: Report) -> None:
    """Fill `directory` with the model of a GGUF file, in a process of its own.

    The weights come out as float32, so the directory and the memory needed take four bytes a
    parameter.

    Raises:
        PlatformError: UNAVAILABLE if a package is missing, INTERNAL if the conversion fails; the
            log says why.
    """
    missing = [name for name in ("torch", "transformers", "gguf") if find_spec(name) is None]
    if missing:
        install = "pip install 'rayserve-platform[models,torch]'"
        message = f"converting {file.name} needs {', '.join(missing)}; {install}"
        raise PlatformError(Code.UNAVAILABLE, message)
    report("reading", 0.0)
    command = [sys.executable, "-m", "rayserve_platform.formats.gguf_to_hf"]
    with tempfile.TemporaryFile() as said:
        status = _run([*command, str(file), str(directory)], said.fileno(), report)
        if status == 0:
            return
        said.seek(0)
        logger.error("converting %s failed: %s", file, said.read().decode(errors="replace"))
    message = f"{file.name} could not be converted; the log says why"
    raise PlatformError(Code.INTERNAL, message, param="source")


def _run(command: list[str], stderr: int, report: Report) -> int:
    """Run the converter, pass its reports on, and return its exit status.

    Its standard input stays open as long as this process lives: that is how it knows.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=os.environ | QUIET,
        text=True,
    ) as process:
        try:
            for line in process.stdout or ():
                phase, fraction = json.loads(line)
                report(phase, fraction)
            return process.wait()
        except BaseException:
            process.kill()
            raise
