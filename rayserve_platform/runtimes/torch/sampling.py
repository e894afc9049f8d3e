"""How one answer's next token is chosen: by transformers' own logits processors.

The list is what `generate` would make for the same request, the model's own generation config
included (repetition of n-grams, forced and suppressed tokens, …).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    ExponentialDecayLengthPenalty,
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
)

from rayserve_platform.core.messages import Generate, Sampling
from rayserve_platform.core.prompts import bad, check_lengths

SEEDS = 2**64
CERTAIN = 1e4
"""A logit beside which no other counts."""
LEAST_TEMPERATURE = 0.01
"""Lower ones are taken for this one, as in vLLM: dividing by less leaves the range of numbers."""


@dataclass(frozen=True, slots=True)
class Range:
    """Finite values from `low` to `high`; without `low` itself where it is open."""

    low: float
    high: float = math.inf
    is_open: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value is in the range."""
        above = self.low < value if self.is_open else self.low <= value
        return above and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        low = f"{'>' if self.is_open else '>='} {self.low}"
        return low if self.high == math.inf else f"{low} and <= {self.high}"


RANGES = {
    # Logits are divided by these two, or multiplied: beyond, they leave the range of numbers.
    "temperature": Range(0, 100),
    "repetition_penalty": Range(0.01, 100),
    "top_k": Range(-1),
    "top_p": Range(0, 1, is_open=True),
    "min_p": Range(0, 1),
    "typical_p": Range(0, 1, is_open=True),
    "frequency_penalty": Range(-2, 2),
    "presence_penalty": Range(-2, 2),
}
FACTOR = Range(1)
BIAS = Range(-100, 100)
"""The OpenAI API's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What choosing needs of a model. `model` is transformers' own."""

    model: Any
    end_ids: tuple[int, ...]
    vocabulary: int
    device: torch.device


class NoStopTokenYet(MinNewTokensLengthLogitsProcessor):  # type: ignore[misc]
    """Keeps a request's own stop tokens away from the beginning, as its base does end tokens."""


class CountPenalty(LogitsProcessor):  # type: ignore[misc]
    """Frequency and presence penalty (OpenAI API): lowers tokens that the answer already has.

    Args:
        start: where the answer begins in the ids.
        frequency: subtracted from the logit once for each occurrence.
        presence: subtracted once.
    """

    def __init__(self, start: int, frequency: float, presence: float) -> None:
        self._start = start
        self._frequency = frequency
        self._presence = presence

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return lowered scores, [1, vocabulary]."""
        counts = torch.bincount(input_ids[0, self._start :], minlength=scores.shape[-1])
        return scores - counts * self._frequency - (counts > 0) * self._presence


class LengthPenalty(ExponentialDecayLengthPenalty):  # type: ignore[misc]
    """Its base, with finite results.

    Tokens that are ruled out stay so, and the end token stops growing once it is certain.
    """

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores with the end token's raised, [1, vocabulary]."""
        try:
            grown = super().__call__(input_ids, scores)
        except OverflowError:  # of the factor's power
            grown = scores.index_fill(-1, self.eos_token_id.to(scores.device), CERTAIN)
        return torch.where(scores.isneginf(), scores, grown.clamp(max=CERTAIN))


class Chooser:
    """Chooses the tokens of one answer.

    Args:
        model: whose answer.
        request: as `check` has passed it.
        index: which of the request's answers; each draws from a seed of its own.
        prompt: what the decoder starts from: the prompt, or an encoder-decoder model's start token.
        source: an encoder-decoder model's prompt.
        limit: most new tokens.
        guide: keeps the answer to a grammar.
    """

    def __init__(
        self,
        model: Model,
        request: Generate,
        *,
        index: int,
        prompt: Sequence[int],
        source: Sequence[int] | None,
        limit: int,
        guide: LogitsProcessor | None,
    ) -> None:
        config = generation_config(model, request, length=len(prompt), limit=limit)
        own = LogitsProcessorList()
        sampling, stopping = request.sampling, request.stopping
        if sampling.length_penalty and model.end_ids and not stopping.ignore_eos:
            ends = list(model.end_ids)
            own.append(LengthPenalty(sampling.length_penalty, ends, len(prompt)))
        if sampling.frequency_penalty or sampling.presence_penalty:
            own.append(
                CountPenalty(
                    len(prompt), sampling.frequency_penalty or 0, sampling.presence_penalty or 0
                )
            )
        if stopping.stop_token_ids and stopping.min_new_tokens:
            ids = list(stopping.stop_token_ids)
            least = stopping.min_new_tokens
            own.append(NoStopTokenYet(len(prompt), least, ids, device=str(model.device)))
        if guide is not None:
            own.append(guide)
        encoded = None if source is None else torch.tensor([source], device=model.device)
        # Private, but the one place that knows every processor and their order; transformers' own
        # continuous batching calls it from outside as well.
        self._processors = model.model._get_logits_processor(  # noqa: SLF001
            config,
            input_ids_seq_length=len(prompt),
            encoder_input_ids=encoded,
            logits_processor=own,
            device=str(model.device),
        )
        self._guided = guide is not None
        self._sample = bool(config.do_sample)
        self._ids = torch.empty((1, len(prompt) + limit), dtype=torch.long, device=model.device)
        self._ids[0, : len(prompt)] = torch.tensor(prompt, device=model.device)
        self._length = len(prompt)
        self._generator = torch.Generator(device=model.device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed((sampling.seed + index) % SEEDS)

    @property
    def takes_likeliest(self) -> bool:
        """Whether the choice is the likeliest token, without any processing."""
        return not self._sample and not self._processors

    def choose(self, logits: torch.Tensor) -> int:
        """Return the next token's id for the model's logits, [vocabulary], which stay as they are.

        Called once a token: processors follow what was chosen.

        Raises:
            PlatformError: INVALID_ARGUMENT when the guide lets no token through.
        """
        scores = self._processors(self._ids[:, : self._length], logits[None].clone())
        if self._guided and bool(scores.isneginf().all()):
            raise bad("guided", "demands what this model's vocabulary can't write")
        if self._sample:
            probabilities = scores.clamp(max=CERTAIN).softmax(-1)
            chosen = torch.multinomial(probabilities, 1, generator=self._generator)
        else:
            chosen = scores.argmax(-1)
        return int(chosen.item())

    def note(self, token_id: int) -> None:
        """Add the chosen token to what the next choice looks back on."""
        self._ids[0, self._length] = token_id
        self._length += 1


def generation_config(model: Model, request: Generate, *, length: int, limit: int) -> Any:
    """Return the model's generation config with the request's own values."""
    config = copy.copy(model.model.generation_config)
    given: Sampling = request.sampling
    values = {
        "temperature": given.temperature and max(given.temperature, LEAST_TEMPERATURE),
        "top_k": None if given.top_k is None else max(given.top_k, 0),
        "top_p": given.top_p,
        "min_p": given.min_p,
        "typical_p": given.typical_p,
        "repetition_penalty": given.repetition_penalty,
        "sequence_bias": {(i,): bias for i, bias in (given.logit_bias or {}).items()} or None,
    }
    for name, value in values.items():
        if value is not None:
            setattr(config, name, value)
    config.do_sample = config.temperature != 0
    # A guided answer ends where its grammar does.
    config.min_new_tokens = request.stopping.min_new_tokens if request.guided is None else 0
    config.max_length = length + limit
    config.num_beams = 1
    config._eos_token_tensor = (  # noqa: SLF001  # what `generate` sets for the same purpose
        torch.tensor(model.end_ids, device=model.device) if model.end_ids else None
    )
    return config


def check(request: Generate, *, vocabulary: int) -> None:
    """Refuse values that mean nothing.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field and its range.
    """
    given = request.sampling
    for name, limits in RANGES.items():
        value = getattr(given, name)
        if value is not None and not limits.holds(value):
            raise bad(name, f"must be {limits}, got {value}")
    if given.length_penalty is not None:
        start, factor = given.length_penalty
        if start < 0 or not FACTOR.holds(factor):
            raise bad("length_penalty", f"must start at >= 0 and have a factor {FACTOR}")
    _check_ids(request, vocabulary)
    if request.n < 1:
        raise bad("n", f"must be >= 1, got {request.n}")
    check_lengths(request.stopping)


def _check_ids(request: Generate, vocabulary: int) -> None:
    biases = request.sampling.logit_bias or {}
    for name, ids in (("logit_bias", biases), ("stop_token_ids", request.stopping.stop_token_ids)):
        if any(not 0 <= i < vocabulary for i in ids):
            raise bad(name, f"token ids must be >= 0 and < {vocabulary}")
    for value in biases.values():
        if not BIAS.holds(value):
            raise bad("logit_bias", f"values must be {BIAS}, got {value}")
