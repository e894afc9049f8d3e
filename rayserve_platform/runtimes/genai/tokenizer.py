"""A model's tokenizer, for texts of any length."""

import importlib.metadata
from pathlib import Path

import numpy as np
import openvino
import openvino_genai
import openvino_tokenizers  # noqa: F401  # OpenVINO reads tokenizers' models then
from openvino import opset13 as ops

from rayserve_platform.formats.cache import cache_root, made_once
from rayserve_platform.formats.gguf import name_of
from rayserve_platform.formats.progress import unheard

TOKENIZER, DETOKENIZER = "openvino_tokenizer", "openvino_detokenizer"
ENDLESS = 2**31 - 1
MAKER = 1
"""Part of every entry's name. Raise it when something else is made than before."""


def tokenizer_folder(path: Path) -> Path:
    """Return the folder with the tokenizer of a GGUF file or a folder in OpenVINO's format.

    A GGUF file's takes seconds to make, so it is kept (`cache.cache_root`).

    Raises:
        PlatformError: UNAVAILABLE if the cache can't be written.
    """
    if not path.is_file():
        return path
    library = importlib.metadata.version("openvino-genai")
    return made_once(
        cache_root() / "tokenizers",
        f"{name_of(path)}-v{MAKER}-openvino-genai-{library}",
        lambda folder: _make(path, folder),
        report=unheard,
    )


def _make(path: Path, folder: Path) -> None:
    """Fill a folder with a GGUF file's tokenizer.

    What the library (2026.4) makes of one keeps the last 8192 tokens of a text, whatever
    `max_length` it is told.
    """
    file = folder / path.name  # the library writes the models that it makes beside the file
    file.symlink_to(path)
    openvino_genai.Tokenizer(str(file), enable_save_ov_model=True)
    cut = folder / f"{TOKENIZER}.xml"
    model = openvino.Core().read_model(cut)
    for node in model.get_ops():
        if node.get_type_name() == "Minimum":  # of a text's tokens and the most there may be
            node.input(1).replace_source_output(ops.constant(np.int32(ENDLESS)).output(0))
    whole = folder / "whole.xml"
    openvino.save_model(model, whole, compress_to_fp16=False)
    del model, node  # they hold the first one's file
    for suffix in (".xml", ".bin"):
        whole.with_suffix(suffix).rename(cut.with_suffix(suffix))
    for other in folder.iterdir():
        if other.name.rpartition(".")[0] not in {TOKENIZER, DETOKENIZER}:
            other.unlink()
