"""The "PyTorch model format": a Hugging Face directory with safetensors or `pytorch_model.bin`."""

from pathlib import Path

from rayserve_platform.formats.weights import PICKLED, SAFE, unusable, weight_files

FOREIGN = {
    "*.h5": "TensorFlow",
    "*.msgpack": "Flax",
    "*.onnx": "ONNX",
    "*.gguf": "GGUF",
    "*.ckpt": "a training checkpoint",
    "*.pth": "a bare PyTorch file",
    "*.pt": "a bare PyTorch file",
    "adapter_model.*": "an adapter, to be merged into its model",
}
"""Weights of other kinds, to refuse them by what they are."""


def has_safetensors(directory: Path) -> bool:
    """Find the weights: True for safetensors, which are preferred, False for `pytorch_model.bin`.

    A `.bin` is a pickle; it must be read with `weights_only=True`, which makes tensors and runs
    nothing.

    Raises:
        PlatformError: INVALID_ARGUMENT if there are neither, or files of several are missing.
    """
    if not any((directory / name).is_file() for name in (*SAFE, *PICKLED)):
        found = {kind for pattern, kind in FOREIGN.items() for _ in directory.glob(pattern)}
        other = f"; found instead: {', '.join(sorted(found))}" if found else ""
        raise unusable(f"the model has no weights: no {SAFE[0]} and no {PICKLED[0]}{other}")
    files = weight_files(directory, allow_pickle=True)
    return any(file.suffix == ".safetensors" for file in files)
