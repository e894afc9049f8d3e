"""The logits processors of `logits` for vLLM's second model runner.

That runner calls them after penalties and before temperature. It asks each request once whether it
wants one, and a batch in which none does costs nothing.
"""

from typing import Any

import torch
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsContext,
    LogitsProcessor,
    LogitsProcRequestState,
)

from rayserve_platform.runtimes.vllm.logits import (
    Length,
    Typical,
    keep_typical,
    length_of,
    penalize_length,
    typical_of,
)


class TypicalSampling(LogitsProcessor):  # type: ignore[misc]  # vLLM is untyped here
    """`typical_p`."""

    def __init__(self, vllm_config: Any, req_states: LogitsProcRequestState) -> None:
        self._slots: dict[int, tuple[Typical, float]] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for what a request may not ask."""
        typical_of(sampling_params)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a request in; its slot may have been another's."""
        self._slots.pop(req_idx, None)
        wanted = typical_of(sampling_params)
        if wanted is not None:
            self._slots[req_idx] = (wanted, sampling_params.temperature)
        return wanted is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Filter the rows that ask for it, as they look under their temperature."""
        for row, slot in _rows(self._slots, ctx):
            wanted, temperature = self._slots[slot]
            kept = keep_typical(logits[row] / temperature, wanted)
            logits[row].masked_fill_(kept.isneginf(), -torch.inf)
        return logits


class LengthPenalty(LogitsProcessor):  # type: ignore[misc]  # vLLM is untyped here
    """`length_penalty`."""

    def __init__(self, vllm_config: Any, req_states: LogitsProcRequestState) -> None:
        self._states = req_states
        self._slots: dict[int, tuple[Length, list[int]]] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for what a request may not ask."""
        length_of(sampling_params)

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a request in; its slot may have been another's."""
        self._slots.pop(req_idx, None)
        wanted = length_of(sampling_params)
        if wanted is not None:
            self._slots[req_idx] = (wanted, sorted(sampling_params.all_stop_token_ids))
        return wanted is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Raise the end of text in the rows that are past their start index."""
        for row, slot in _rows(self._slots, ctx):
            wanted, eos = self._slots[slot]
            # The row's own place in its sequence, draft tokens before it included.
            written = ctx.pos[row : row + 1] + 1 - self._states.prompt_len.gpu[slot]
            factor = torch.tensor([wanted.factor], device=logits.device)
            penalize_length(logits[row : row + 1], eos, written - wanted.start, factor)
        return logits


def _rows(slots: dict[int, Any], ctx: LogitsContext) -> list[tuple[int, int]]:
    """Return (row, slot) of the batch's rows whose slot is one of `slots`."""
    if not slots or not any(int(slot) in slots for slot in ctx.idx_mapping_np):
        return []
    return [
        (row, slot) for row, slot in enumerate(ctx.expanded_idx_mapping.tolist()) if slot in slots
    ]
