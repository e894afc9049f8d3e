"""A model's tokenizer, from its files."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.weights import read_json


def load_tokenizer(directory: Path) -> Any:
    """Load a tokenizer without limits of its own.

    `tokenizer.json` alone is read without transformers, whose import takes seconds. It is corrected
    as transformers corrects it: `do_lower_case` of a BERT tokenizer's config wins.
    """
    path = directory / "tokenizer.json"
    if path.is_file():
        content = read_json(path)
        normalizer = content.get("normalizer")
        config = directory / "tokenizer_config.json"
        if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
            given = read_json(config) if config.is_file() else {}
            for ours, theirs in (
                ("lowercase", "do_lower_case"),
                ("strip_accents", "strip_accents"),
                ("handle_chinese_chars", "tokenize_chinese_chars"),
            ):
                normalizer[ours] = given.get(theirs, normalizer.get(ours))
        try:
            tokenizer = Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # tokenizers raises bare exceptions
            message = "tokenizer.json can't be read by the tokenizers library"
            raise PlatformError(Code.INVALID_ARGUMENT, message, param="source") from error
    else:
        tokenizer = _converted(directory)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _converted(directory: Path) -> Any:
    """Let transformers make a tokenizer of a vocabulary."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True).backend_tokenizer
    except Exception as error:
        message = "the model has no tokenizer.json, and none can be made of its vocabulary"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source") from error


def pad_id(directory: Path, tokenizer: Any) -> int:
    """Return the id that fills a batch up; some models tell positions by it."""
    for name, read in (("tokenizer_config.json", "pad_token"), ("config.json", "pad_token_id")):
        path = directory / name
        value = read_json(path).get(read) if path.is_file() else None
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            value = tokenizer.token_to_id(value)
        if isinstance(value, int):
            return value
    return 0
