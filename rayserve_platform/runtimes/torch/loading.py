"""A model directory to a model, its tokenizer and its limits."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)
from transformers.utils.logging import disable_progress_bar

from rayserve_platform.formats.pytorch import has_safetensors
from rayserve_platform.formats.weights import unusable
from rayserve_platform.settings.torch import TorchApp

log = logging.getLogger("rayserve.torch")

LENGTHS = ("max_position_embeddings", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
"""Names under which configs keep the number of positions a model was made for."""

DEFAULT_LENGTH = 2048
"""For models that name no length, as TGIS (router, `max_sequence_length`)."""

LARGEST_LENGTH = 10**8
"""A tokenizer without a length says 10^30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that can be asked.

    Args:
        model: in evaluation mode, on its device.
        max_model_len: see `settings.torch.TorchEngine`.
        vocabulary: the number of its logits.
        end_ids: its end-of-text tokens; the first is the tokenizer's own.
        start_id: what an encoder-decoder model's answers start from.
    """

    model: Any
    tokenizer: Any
    max_model_len: int
    vocabulary: int
    end_ids: tuple[int, ...]
    start_id: int
    pad_id: int


def load(directory: Path, settings: TorchApp) -> Loaded:
    """Load a Hugging Face directory; no code of its own runs.

    Raises:
        PlatformError: INVALID_ARGUMENT for a directory that is no text-generation model, whose
            weights are missing, of an unsafe kind or don't fit, or for a length it can't have.
    """
    disable_progress_bar()  # a replica's log is no terminal
    safe = has_safetensors(directory)
    config = _config(directory)
    tokenizer = _tokenizer(directory)
    longest = _length(config, tokenizer, settings.engine.max_model_len)
    gpu = settings.placement.num_gpus > 0
    if 0 < settings.placement.num_gpus < 1:
        torch.cuda.set_per_process_memory_fraction(settings.placement.num_gpus)
    dtype = settings.engine.dtype
    if dtype == "auto" and not gpu:
        dtype = "float32"
    model = _model(directory, config, dtype=dtype, safe=safe).eval()
    model.requires_grad_(requires_grad=False)
    model.to("cuda" if gpu else "cpu")
    generation = model.generation_config
    ends = dict.fromkeys((tokenizer.eos_token_id, *_listed(generation.eos_token_id)))
    start = generation.decoder_start_token_id
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        max_model_len=longest,
        vocabulary=model.get_output_embeddings().weight.shape[0],
        end_ids=tuple(i for i in ends if i is not None),
        start_id=start if start is not None else (generation.bos_token_id or 0),
        pad_id=_first(generation.pad_token_id, config.get_text_config().pad_token_id, 0),
    )


def _config(directory: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise unusable(
            "config.json is missing, broken or of a model type that transformers doesn't know "
            "(code that comes with a model is not run)"
        ) from error
    kinds = (
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
        if config.is_encoder_decoder
        else MODEL_FOR_CAUSAL_LM_MAPPING
    )
    if type(config) not in kinds:
        raise unusable(f"model type '{config.model_type}' does not generate text")
    return config


def _tokenizer(directory: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unusable("the tokenizer is missing or broken") from error


def _model(directory: Path, config: Any, *, dtype: str, safe: bool) -> Any:
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        model, told = kind.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            use_safetensors=safe,
            weights_only=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        # Readers of weights raise what they like, from struct.error to pickle.UnpicklingError.
        name = "the safetensors" if safe else "pytorch_model.bin (read as weights only)"
        raise unusable(f"{name} can't be loaded into a {config.model_type} model") from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise unusable(f"the weights lack {len(missing)} tensors, such as {missing[0]}")
    return model


def _length(config: Any, tokenizer: Any, asked: int | None) -> int:
    text = config.get_text_config(decoder=True)
    made_for = next(
        (n for name in LENGTHS if isinstance(n := getattr(text, name, None), int)), None
    )
    if made_for is not None and asked is not None and asked > made_for:
        raise unusable(
            f"engine.max_model_len: {asked} is more than the {made_for} positions of the model"
        )
    if asked is not None or made_for is not None:
        return _first(asked, made_for, 0)
    known = tokenizer.model_max_length
    return known if known < LARGEST_LENGTH else DEFAULT_LENGTH


def _listed(ids: int | list[int] | None) -> list[int]:
    if ids is None:
        return []
    return list(ids) if isinstance(ids, list) else [ids]


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)
