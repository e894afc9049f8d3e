"""The vocabulary's `Generate` as the library's `GenerationConfig`, and what it can't do."""

import math
import secrets
from collections.abc import Iterator
from typing import Any

import openvino_genai

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Generate
from rayserve_platform.core.prompts import bad, check_lengths
from rayserve_platform.runtimes.genai.form import check_form, to_structure

SEEDS = 2**32
"""The library's generator takes so many."""
LEAST_TEMPERATURE = 0.01
"""Lower ones are taken for this one, as in vLLM: dividing by less leaves the range of numbers."""
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "repetition_penalty": (0.01, 100),
    "top_k": (-1, math.inf),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}


def to_config(request: Generate, *, index: int, limit: int, defaults: Any) -> Any:
    """Return the library's config of one answer; the request has been checked.

    Args:
        request: what is asked for.
        index: which of its answers.
        limit: most new tokens.
        defaults: the model's own config.
    """
    stopping = request.stopping
    config = openvino_genai.GenerationConfig()
    config.eos_token_id = defaults.eos_token_id
    config.stop_token_ids = {*defaults.stop_token_ids, *stopping.stop_token_ids}
    config.max_new_tokens = limit
    config.apply_chat_template = False
    # A guided answer ends where its grammar does.
    config.min_new_tokens = stopping.min_new_tokens if request.guided is None else 0
    config.ignore_eos = stopping.ignore_eos
    config.logprobs = 1 if wants_logprobs(request) else 0
    for name in ("repetition_penalty", "frequency_penalty", "presence_penalty"):
        setattr(config, name, _either(request, defaults, name))
    temperature = _either(request, defaults, "temperature")
    if temperature:
        _sample(config, request, index, defaults)
        config.temperature = max(temperature, LEAST_TEMPERATURE)
    if request.guided is not None:
        config.structured_output_config = to_structure(request.guided)
    return config


def _sample(config: Any, request: Generate, index: int, defaults: Any) -> None:
    config.do_sample = True
    for name in ("top_p", "min_p"):
        setattr(config, name, _either(request, defaults, name))
    top_k = _either(request, defaults, "top_k")
    if top_k > 0:  # otherwise all tokens, as the library does by itself
        config.top_k = top_k
    seed = request.sampling.seed
    config.rng_seed = (secrets.randbelow(SEEDS) if seed is None else seed + index) % SEEDS


def wants_logprobs(request: Generate) -> bool:
    """Whether new tokens are described by their probabilities."""
    details = request.details
    return details.generated_tokens and (
        details.logprobs or details.ranks or details.top_n_tokens > 0
    )


def takes_likeliest(request: Generate, defaults: Any) -> bool:
    """Whether each token is the model's own likeliest: then its rank is known, and the best one."""
    penalties = {"repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0}
    return (
        _either(request, defaults, "temperature") == 0
        and all(_either(request, defaults, name) == none for name, none in penalties.items())
        and request.guided is None
        and request.stopping.min_new_tokens == 0
    )


def _either(request: Generate, defaults: Any, name: str) -> Any:
    """Return the request's own value, or else the model's."""
    value = getattr(request.sampling, name)
    return getattr(defaults, name) if value is None else value


def check(request: Generate, *, defaults: Any, vocabulary: int, most_answers: int) -> None:
    """Refuse values that mean nothing, and what the library can't do.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field and its range; UNIMPLEMENTED naming the
            field.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(request.sampling, name)
        if value is not None and not (low <= value <= high and math.isfinite(value)):
            bound = f"from {low} to {high}" if high < math.inf else f">= {low}"
            raise bad(name, f"must be {bound}, got {value}")
    if request.sampling.top_p == 0:
        raise bad("top_p", "must be > 0")
    if not 1 <= request.n <= most_answers:
        raise bad("n", f"must be from 1 to {most_answers}, got {request.n}")
    check_lengths(request.stopping)
    if any(not 0 <= i < vocabulary for i in request.stopping.stop_token_ids):
        raise bad("stop_token_ids", f"must hold token ids >= 0 and < {vocabulary}")
    for name, reason in _missing(request, defaults):
        raise PlatformError(
            Code.UNIMPLEMENTED, f"The genai runtime does not support '{name}'{reason}.", param=name
        )
    if request.guided is not None:
        check_form(request.guided)


def _missing(request: Generate, defaults: Any) -> Iterator[tuple[str, str]]:
    """Yield what is asked for and can't be had, and why."""
    given, details = request.sampling, request.details
    for name in ("typical_p", "length_penalty", "logit_bias"):
        if getattr(given, name):
            yield name, ""
    described = details.logprobs or details.ranks or details.top_n_tokens > 0
    if details.input_tokens and details.input_token_details and described:
        yield "input_tokens", " with log probabilities or ranks"
    if details.top_n_tokens > 1:
        yield "top_n_tokens", " beyond 1"
    if (details.top_n_tokens or details.ranks) and not takes_likeliest(request, defaults):
        name = "top_n_tokens" if details.top_n_tokens else "ranks"
        yield name, " unless decoding is greedy, without penalties, guide and least length"
