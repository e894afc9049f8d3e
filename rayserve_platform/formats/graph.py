"""Models that compute on tensors: which framework wrote a file or folder, without loading it.

Of several files the first format of `Format` wins: what was converted before what it was made of.
"""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath

from rayserve_platform.formats.weights import unusable


class Format(StrEnum):
    """Formats that are served, as people call them."""

    IR = "OpenVINO IR"
    ONNX = "ONNX"
    SAVED_MODEL = "TensorFlow SavedModel"
    FROZEN = "frozen TensorFlow graph"
    TFLITE = "TensorFlow Lite"
    PADDLE = "PaddlePaddle"
    TORCH_EXPORT = "torch.export"
    TRANSFORMERS = "Hugging Face transformers"
    TORCHSCRIPT = "TorchScript"


CONVERTED = frozenset({Format.TORCH_EXPORT, Format.TORCHSCRIPT, Format.TRANSFORMERS})
"""Formats that OpenVINO doesn't read from a file: torch loads them, in a process of its own."""

SUFFIXES = {
    ".xml": Format.IR,
    ".onnx": Format.ONNX,
    ".pb": Format.FROZEN,
    ".pbtxt": Format.FROZEN,
    ".tflite": Format.TFLITE,
    ".pdmodel": Format.PADDLE,
    ".pt2": Format.TORCH_EXPORT,
    ".pt": Format.TORCHSCRIPT,
    ".pth": Format.TORCHSCRIPT,
}

FOLDERS = {
    Format.SAVED_MODEL: {"saved_model.pb"},
    Format.TRANSFORMERS: {"config.json", "modules.json"},
}
"""Formats that are whole folders, and the files that tell."""

SERVED = ", ".join(Format)

EXPORT = "save it with torch.export.save (.pt2), or torch.jit.save (.pt)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A model on disk.

    Args:
        path: what is to be read: a file, or the folder of a SavedModel or of transformers.
    """

    format: Format
    path: Path


def detect(place: Path) -> Graph:
    """Find the model in a folder, or take the file.

    Raises:
        PlatformError: INVALID_ARGUMENT if there is none, there are several of one format, or it is
            of a format that is not served: then with what to do.
    """
    if place.is_file():
        if place.name == "saved_model.pb":
            return Graph(format=Format.SAVED_MODEL, path=place.parent)
        return _checked([place], [place])
    try:
        files = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise unusable("the model's files are missing or can't be read") from error
    return _in_folder(place, files)


def _in_folder(folder: Path, files: Sequence[Path]) -> Graph:
    names = {file.name for file in files}
    found: dict[Format, list[Path]] = {}
    for file in files:
        kind = SUFFIXES.get(file.suffix.lower())
        if kind is not None and file.is_file():
            found.setdefault(kind, []).append(file)
    for kind in Format:
        if FOLDERS.get(kind, set()) & names:
            return Graph(format=kind, path=folder)
        if kind in found:
            return _checked(found[kind], files)
    return _checked([], files)


def _checked(candidates: Sequence[Path], files: Sequence[Path]) -> Graph:
    """Take the one candidate, after a look at it; say what else is there if there is none."""
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates[:3])
        raise unusable(f"the folder holds several models of one format ({names}); keep one")
    kind = SUFFIXES.get(candidates[0].suffix.lower()) if candidates else None
    if kind is None:
        reason = legacy(file.name for file in files)
        raise unusable(reason or f"there is no model that can be served; served are {SERVED}")
    path = candidates[0]
    if kind is Format.IR and not path.with_suffix(".bin").is_file():
        raise unusable(f"{path.name} has no weights beside it: {path.stem}.bin is missing")
    if kind in (Format.TORCHSCRIPT, Format.TORCH_EXPORT):
        kind = _torch(path)
    return Graph(format=kind, path=path)


def legacy(names: Iterable[str]) -> str:
    """Say of files in formats that are not served what they are and what converts them.

    OpenVINO dropped MXNet, Caffe and Kaldi. The Model Optimizer of the release named here still
    reads them, and OpenVINO 2026.4 reads what it writes (tried with a small model of each). No
    package that could be an extra converts them to ONNX: MXNet is retired, nothing reads Kaldi, and
    caffe-onnx 0.1.2 needs a protobuf older than gRPC's, knows 15 kinds of layers and drops others.
    PaddlePaddle 3.1.1 still writes as .pdmodel what 3.2.2 (sigmoid) and 3.3.1 (tanh, exp) don't.
    """
    listed = list(names)
    suffixes = {PurePath(name).suffix.lower() for name in listed}
    for marks, reason in LEGACY:
        if marks <= suffixes:
            return reason
    return ""


def _old(what: str, extra: str) -> str:
    return (
        f"this is {what} model, which OpenVINO no longer reads; convert it once with Model "
        f"Optimizer (pip install 'openvino-dev[{extra}]==2023.3.0' in an environment of its own, "
        "then mo --compress_to_fp16=False --input_model FILE) and serve the OpenVINO IR it writes"
    )


LEGACY = (
    ({".caffemodel"}, _old("a Caffe", "caffe")),
    ({".prototxt"}, _old("a Caffe", "caffe")),
    ({".nnet"}, _old("a Kaldi", "kaldi")),
    ({".mdl"}, _old("a Kaldi", "kaldi")),
    ({".params"}, _old("an MXNet", "mxnet")),
    (
        {".json", ".pdiparams"},
        (
            "this is a PaddlePaddle model in PIR (.json), which OpenVINO doesn't read; export it "
            "with PaddlePaddle 3.1 and FLAGS_enable_pir_api=0, or with 2.6, which write .pdmodel"
        ),
    ),
    ({".pdparams"}, "these are PaddlePaddle weights alone; export the model with paddle.jit.save"),
    ({".keras"}, "this is a Keras model; write a SavedModel of it with model.export(FOLDER)"),
    ({".h5"}, "this is a Keras model; write a SavedModel of it with model.export(FOLDER)"),
    ({".safetensors"}, f"these are weights alone, without a model; {EXPORT}"),
    ({".pkl"}, f"this is a pickle, and reading one can run code; {EXPORT}"),
    ({".ckpt"}, "this is a training checkpoint, not a model; export the model"),
)
"""Suffixes that files of a folder have together, and what to say of them."""


def _torch(path: Path) -> Format:
    """Tell torch's archives apart by what is in them; none is unpickled.

    Raises:
        PlatformError: INVALID_ARGUMENT for a pickled module, a state_dict, or an archive in which
            something would have to be unpickled or run natively.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inner = {name.partition("/")[2] for name in names}
            if "archive_format" in inner or "serialized_exported_program.json" in names:
                _check_export(archive, names, inner)
                return Format.TORCH_EXPORT
    except (OSError, zipfile.BadZipFile) as error:
        raise unusable(
            f"{path.name} is no TorchScript archive but a bare pickle or damaged, and reading a "
            f"pickle can run code; {EXPORT}"
        ) from error
    if any(name.startswith("code/") for name in inner) and "constants.pkl" in inner:
        return Format.TORCHSCRIPT
    raise unusable(
        f"{path.name} is a pickled module or state_dict: a pickle can run code when it is read, "
        f"and a state_dict holds no model; {EXPORT}"
    )


def _check_export(archive: zipfile.ZipFile, names: Sequence[str], inner: set[str]) -> None:
    """Refuse what `torch.export.load` would unpickle or load as native code.

    Layout of torch 2.8 and later (`torch/export/pt2_archive`); older archives keep their weights
    in pickles.
    """
    if any(name.startswith("data/aotinductor/") for name in inner):
        raise unusable(f"the archive holds compiled code, which is not loaded; {EXPORT}")
    old = "serialized_exported_program.json" in names
    payloads = [name for name in names if name.endswith("_config.json")]
    pickled = any(b'"use_pickle":true' in _compact(archive.read(name)) for name in payloads)
    opaque = any("/data/constants/opaque_obj" in name for name in names)
    whole = any(name.endswith(".pt") and "/data/sample_inputs/" not in name for name in names)
    if old or pickled or opaque or whole:
        raise unusable(
            "the archive holds pickled objects, and reading a pickle can run code; export the "
            "model anew with torch 2.8 or later, from plain tensors"
        )


def _compact(text: bytes) -> bytes:
    return b"".join(text.split())
