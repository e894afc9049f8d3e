"""What TGIS checks of a request's parameters, in its order and its words.

Source: the answers of vllm-tgis-adapter 0.10.0 (`tests/data/tgis`), which kept those of the
original router (`validation.rs`). Every check is written so that NaN fails it.
"""

import math
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.protocols.tgis.options import Options

MAX_STOP_SEQUENCES = 6
MAX_STOP_SEQUENCE_CHARS = 240
"""The message says bytes; the adapter counts characters, and takes what the original refuses."""
MAX_TOP_N_TOKENS = 10


def invalid(message: str) -> PlatformError:
    """Return a mistake of the caller's."""
    return PlatformError(Code.INVALID_ARGUMENT, message)


def check(params: Any, options: Options) -> None:
    """Check `Parameters`; what only sampling uses is checked of greedy requests too.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    _check_decoding(params.decoding)
    _check_stopping(params.stopping, options)
    _check_response(params.response)
    _check_sampling(params.sampling)
    _check_guided(params.decoding)
    _check_temperature(params.sampling)


def _check_decoding(decoding: Any) -> None:
    if decoding.HasField("length_penalty") and not (
        1.0 <= decoding.length_penalty.decay_factor <= 10.0
    ):
        raise invalid("length_penalty.decay_factor must be >= 1.0 and <= 10.0")
    penalty = decoding.repetition_penalty
    if penalty != 0 and not 0.0 < penalty <= 2.0:
        raise invalid("repetition_penalty must be > 0.0 and <= 2.0")


def _check_stopping(stopping: Any, options: Options) -> None:
    if stopping.max_new_tokens > options.max_new_tokens:
        raise invalid(f"max_new_tokens must be <= {options.max_new_tokens}")
    if stopping.min_new_tokens > (stopping.max_new_tokens or options.new_tokens):
        raise invalid("min_new_tokens must be <= max_new_tokens")
    sequences = stopping.stop_sequences
    if len(sequences) > MAX_STOP_SEQUENCES or not all(
        1 <= len(sequence) <= MAX_STOP_SEQUENCE_CHARS for sequence in sequences
    ):
        raise invalid(
            "can specify at most 6 non-empty stop sequences, each not more than 240 UTF8 bytes"
        )


def _check_response(response: Any) -> None:
    if response.top_n_tokens > MAX_TOP_N_TOKENS:
        raise invalid(f"top_n_tokens ({response.top_n_tokens}) must be <= {MAX_TOP_N_TOKENS}")
    detailed = response.token_logprobs or response.token_ranks or response.top_n_tokens
    if detailed and not (response.input_tokens or response.generated_tokens):
        raise invalid("must request input and/or generated tokens to request extra token detail")


def _check_sampling(sampling: Any) -> None:
    if sampling.top_p != 0 and not 0.0 < sampling.top_p <= 1.0:
        raise invalid("top_p must be > 0.0 and <= 1.0")
    if not sampling.typical_p <= 1.0:
        raise invalid("typical_p must be <= 1.0")


def _check_guided(decoding: Any) -> None:
    kind = decoding.WhichOneof("guided")
    if kind == "format" and decoding.format != decoding.JSON:
        raise invalid("decoding.format must be JSON; leave it out for text")
    if kind == "choice" and len(decoding.choice.choices) < 2:
        raise invalid("Must provide at least two choices")
    if kind in ("json_schema", "regex", "grammar") and not getattr(decoding, kind):
        raise invalid(f"decoding.{kind} must not be empty")


def _check_temperature(sampling: Any) -> None:
    """The words are vLLM's."""
    temperature = sampling.temperature
    if not math.isfinite(temperature):
        raise invalid(f"temperature must be a finite number, got {temperature}.")
    if temperature < 0.0:
        raise invalid(f"temperature must be non-negative, got {temperature}.")
