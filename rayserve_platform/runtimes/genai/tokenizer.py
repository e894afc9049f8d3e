"""A model's tokenizer, for texts of any length."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
import openvino_tokenizers  # noqa: F401  # OpenVINO reads tokenizers' models then
from openvino import opset13 as ops

TOKENIZER, DETOKENIZER = "openvino_tokenizer", "openvino_detokenizer"
ENDLESS = 2**31 - 1


def read_tokenizer(path: Path) -> Any:
    """Return the tokenizer of a GGUF file or a folder in OpenVINO's format.

    What the library (2026.4) makes of a GGUF file keeps the last 8192 tokens of a text, whatever
    `max_length` it is told.
    """
    if not path.is_file():
        return openvino_genai.Tokenizer(str(path))
    with tempfile.TemporaryDirectory() as directory:
        made, whole = Path(directory), Path(directory, "whole")
        # The library writes the models that it makes beside the file.
        file = made / path.name
        file.symlink_to(path)
        openvino_genai.Tokenizer(str(file), enable_save_ov_model=True)
        model = openvino.Core().read_model(made / f"{TOKENIZER}.xml")
        for node in model.get_ops():
            if node.get_type_name() == "Minimum":  # of a text's tokens and the most there may be
                node.input(1).replace_source_output(ops.constant(np.int32(ENDLESS)).output(0))
        whole.mkdir()
        openvino.save_model(model, whole / f"{TOKENIZER}.xml", compress_to_fp16=False)
        for part in made.glob(f"{DETOKENIZER}.*"):
            part.rename(whole / part.name)
        return openvino_genai.Tokenizer(str(whole))
