"""The logits processors of `logits` for vLLM's first model runner.

That runner calls those that can't change the likeliest token after temperature and penalties and
only where something is sampled, the others before both and always.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from rayserve_platform.runtimes.vllm.logits import (
    Length,
    Typical,
    keep_typical,
    length_of,
    penalize_length,
    typical_of,
)


class TypicalSampling(LogitsProcessor):  # type: ignore[misc]  # vLLM is untyped here
    """`typical_p`.

    It says of itself that it leaves the likeliest token alone, which is not so; but that keeps it
    where it belongs, behind temperature, and away from greedy requests, which don't ask for it.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:  # noqa: FBT001
        self._rows: dict[int, Typical] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for what a request may not ask."""
        typical_of(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """See the class."""
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests through the batch."""
        process_dict_updates(self._rows, batch_update, lambda params, *_: typical_of(params))

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Filter the rows that ask for it."""
        for row, wanted in self._rows.items():
            logits[row] = keep_typical(logits[row], wanted)
        return logits


class LengthPenalty(LogitsProcessor):  # type: ignore[misc]  # vLLM is untyped here
    """`length_penalty`."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:  # noqa: FBT001
        self._rows: dict[int, tuple[Length, list[int], Sequence[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for what a request may not ask."""
        length_of(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """It exists to make another token the likeliest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests through the batch; their lists of new tokens grow by themselves."""
        process_dict_updates(self._rows, batch_update, _state)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Raise the end of text in the rows that are past their start index."""
        for row, (wanted, eos, written) in self._rows.items():
            past = len(written) - wanted.start
            if past > 0:
                here = torch.tensor([past], device=logits.device)
                factor = torch.tensor([wanted.factor], device=logits.device)
                penalize_length(logits[row : row + 1], eos, here, factor)
        return logits


def _state(
    params: Any, _: list[int] | None, written: list[int]
) -> tuple[Length, list[int], Sequence[int]] | None:
    wanted = length_of(params)
    return (wanted, sorted(params.all_stop_token_ids), written) if wanted is not None else None
