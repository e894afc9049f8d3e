"""What decides the next token beside vLLM's own sampling: `typical_p` and `length_penalty`.

vLLM takes logits processors for a whole engine, not for a request, so these two are part of every
generating engine and do nothing for a request that doesn't ask for them in
`SamplingParams.extra_args`. vLLM has two model runners, each with an interface of its own: without
Triton, as on CPUs, it runs the first (`v1`), else the second (`v2`).

Both follow `transformers` (`TypicalLogitsWarper`, `ExponentialDecayLengthPenalty`), as TGIS does.
"""

from dataclasses import dataclass
from typing import Any

import torch

TYPICAL = "rayserve_typical"
"""In `extra_args`: [typical_p, top_k, top_p]. `typical_p` comes after the other two, so a request
with it leaves all three to us."""
LENGTH = "rayserve_length"
"""In `extra_args`: [start index in new tokens, decay factor]."""

HIGHEST_LOGIT = 1e30
"""Far above any logit, and still finite once a temperature of vLLM's least, 0.01, divides it."""


def processors_for(config: Any) -> list[str]:
    """Return the processors that an engine with this `VllmConfig` can have, by import path.

    vLLM refuses them for pooling models, and with speculative decoding on its first model runner.
    """
    if config.model_config.runner_type == "pooling":
        return []
    if not config.use_v2_model_runner and config.speculative_config:
        return []
    runner = "logits_v2" if config.use_v2_model_runner else "logits_v1"
    return [f"{__package__}.{runner}:{name}" for name in ("TypicalSampling", "LengthPenalty")]


@dataclass(frozen=True, slots=True)
class Typical:
    """What one request asks of the typical filter; `top_k` 0 and `top_p` 1 filter nothing."""

    typical_p: float
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Length:
    """What one request asks of the length penalty."""

    start: int
    factor: float


def typical_of(params: Any) -> Typical | None:
    """Read a request's own; raises ValueError where it is not as it must be."""
    given = _given(params, TYPICAL, 3)
    if given is None or params.temperature == 0:
        return None
    typical_p, top_k, top_p = given
    if not (0 < typical_p <= 1 and 0 < top_p <= 1 and top_k >= 0):
        raise ValueError(f"{TYPICAL} must be [typical_p in (0, 1], top_k from 0, top_p in (0, 1]]")
    return Typical(typical_p, int(top_k), top_p)


def length_of(params: Any) -> Length | None:
    """Read a request's own; raises ValueError where it is not as it must be."""
    given = _given(params, LENGTH, 2)
    if given is None:
        return None
    start, factor = given
    if not (start >= 0 and 1 <= factor <= 10):
        raise ValueError(f"{LENGTH} must be [start from 0, decay factor from 1 to 10]")
    return Length(int(start), factor)


def _given(params: Any, name: str, size: int) -> list[float] | None:
    given = (params.extra_args or {}).get(name)
    if given is None:
        return None
    numbers = isinstance(given, list) and all(type(value) in (int, float) for value in given)
    if not numbers or len(given) != size:
        raise ValueError(f"{name} must be a list of {size} numbers")
    return list(given)


def keep_typical(logits: torch.Tensor, wanted: Typical) -> torch.Tensor:
    """Filter one row, [vocabulary], of logits that temperature has scaled already.

    Of what `top_k` and `top_p` leave, keep the tokens whose surprise is closest to the expected
    one, until they make up `typical_p`; the rest becomes -inf.
    """
    if 0 < wanted.top_k < len(logits):
        edge = logits.topk(wanted.top_k).values[-1]
        logits = logits.masked_fill(logits < edge, -torch.inf)
    if wanted.top_p < 1:
        ascending, order = logits.sort()
        unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - wanted.top_p
        unlikely[-1] = False
        logits = logits.masked_fill(
            torch.zeros_like(unlikely).scatter(0, order, unlikely), -torch.inf
        )
    logprobs = logits.log_softmax(-1)
    probabilities = logprobs.exp()
    entropy = -(logprobs * probabilities).nansum()
    distance = (-logprobs - entropy).abs()
    closest, order = distance.sort()
    mass = probabilities[order].cumsum(-1)
    last = (mass < wanted.typical_p).sum().clamp(max=len(mass) - 1)
    return logits.masked_fill(distance > closest[last], -torch.inf)


def penalize_length(
    logits: torch.Tensor, eos: list[int], new_tokens: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    """Raise the end-of-text logits of rows, [rows, vocabulary], in place.

    Args:
        logits: changed here.
        eos: the end-of-text tokens.
        new_tokens: [rows], how many tokens past its start index each row is; below 1: nothing yet.
        factor: [rows].
    """
    ends = logits[:, eos]
    growth = factor[:, None].pow(new_tokens.clamp(min=0)[:, None]) - 1
    raised = (ends + ends.abs() * growth).clamp(max=HIGHEST_LOGIT)
    # What is forbidden (-inf) by a grammar or a least length stays so.
    logits[:, eos] = torch.where(ends.isfinite() & (growth > 0), raised, ends)
    return logits
