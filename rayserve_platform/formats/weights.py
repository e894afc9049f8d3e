"""The weights in a model directory: which files they are, and whether reading them is safe."""

import json
from pathlib import Path
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError

SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""File names of transformers (`transformers.utils`: SAFE_WEIGHTS_NAME, WEIGHTS_NAME, and their
`_INDEX_NAME` for weights in several files)."""

GRAPHS = ("openvino_model.xml", "openvino/openvino_model.xml")
"""Where optimum-intel and sentence-transformers write a model as OpenVINO IR."""


def unusable(reason: str) -> PlatformError:
    """Return the error for a model directory that can't be served."""
    return PlatformError(Code.INVALID_ARGUMENT, reason, param="source")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model.

    Raises:
        PlatformError: INVALID_ARGUMENT if it can't be read or holds no object.
    """
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise unusable(f"{path.name} holds no JSON object")
    return content


def read_json_value(path: Path) -> Any:
    """Return whatever a JSON file of a model holds; raises as `read_json`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unusable(f"{path.name} is missing or can't be read") from error
    except ValueError as error:
        raise unusable(f"{path.name} is not JSON") from error


def weight_files(directory: Path, *, allow_pickle: bool, what: str = "the model") -> list[Path]:
    """Return the files that hold the weights: safetensors, or pickles where there are none.

    Args:
        directory: where they are.
        allow_pickle: take pickled weights.
        what: whose weights, for messages.

    Raises:
        PlatformError: INVALID_ARGUMENT if there are none, some of several files are missing, or
            they are pickled and that is not allowed.
    """
    for names, safe in ((SAFE, True), (PICKLED, False)):
        whole, index = (directory / name for name in names)
        if not (whole.is_file() or index.is_file()):
            continue
        if not safe and not allow_pickle:
            raise unusable(
                f"{what} has pickled weights alone ({whole.name}), and reading a pickle can run "
                "code; save it as safetensors, or set allow_pickle if you trust it"
            )
        return [whole] if whole.is_file() else _shards(index, what)
    raise unusable(f"{what} has no weights: there is no {SAFE[0]}")


def graph_file(directory: Path) -> Path | None:
    """Return the OpenVINO IR that a directory holds in place of safetensors, if it does."""
    if any((directory / name).is_file() for name in SAFE):
        return None
    found = [directory / name for name in GRAPHS]
    return next((file for file in found if file.with_suffix(".bin").is_file()), None)


def _shards(index: Path, what: str) -> list[Path]:
    table = read_json(index).get("weight_map")
    names = sorted(set(table.values())) if isinstance(table, dict) else []
    if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
        raise unusable(f"{index.name} has no 'weight_map' of file names")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise unusable(f"{what} lacks {len(missing)} of {len(names)} files, such as {missing[0]}")
    return [index, *(index.parent / name for name in names)]


def inside(directory: Path, path: str, what: str) -> Path:
    """Return `directory/path`, refusing a path that leaves the directory.

    Links are followed as they are: model stores make them, and who can write them can write the
    model.

    Raises:
        PlatformError: INVALID_ARGUMENT naming `what`.
    """
    parts = Path(path).parts
    if Path(path).is_absolute() or ".." in parts or "\0" in path or "\\" in path:
        raise unusable(f"{what}: '{path[:100]}' must stay inside the model's directory")
    return directory / path


def size_bytes(path: Path) -> int:
    """Return the size of a model's file, or of all files in its folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
