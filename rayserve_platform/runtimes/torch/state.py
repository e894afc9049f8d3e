"""What a model remembers of the answers it is writing together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from rayserve_platform.runtimes.torch import caches


@dataclass(slots=True, kw_only=True)
class Source:
    """Encoded prompts, padded on the right.

    Args:
        states: [rows, source length, width].
        mask: int64 [rows, source length]; 0 is padding.
    """

    states: torch.Tensor
    mask: torch.Tensor


@dataclass(slots=True, kw_only=True)
class State:
    """The rows of one batch, padded on the left.

    Args:
        cache: transformers' own.
        mask: int64 [rows, length]; 0 is padding.
        source: for an encoder-decoder model.
    """

    cache: Any
    mask: torch.Tensor
    source: Source | None = None

    @property
    def length(self) -> int:
        """Positions of the longest row."""
        return int(self.mask.shape[1])

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, as `caches.keep_rows`, and what padding they need."""
        index = torch.tensor(rows, device=self.mask.device)
        caches.keep_rows(self.cache, index)
        self.mask = self.mask[index]
        length = int(self.mask.sum(-1).max())
        source_length = 0
        if self.source is not None:
            mask = self.source.mask[index]
            source_length = int(mask.sum(-1).max())
            states = self.source.states[index, :source_length]
            self.source = Source(states=states, mask=mask[:, :source_length])
        if length != self.length or self.source is not None:
            caches.fit(self.cache, length, source_length)
            self.mask = self.mask[:, self.length - length :]

    def append(self, other: "State") -> None:
        """Add the rows of another state behind the own ones."""
        length = max(self.length, other.length)
        source_length = 0
        if self.source is not None and other.source is not None:
            source_length = max(self.source.mask.shape[1], other.source.mask.shape[1])
            parts = [_widened(part, source_length) for part in (self.source, other.source)]
            self.source = Source(
                states=torch.cat([part.states for part in parts]),
                mask=torch.cat([part.mask for part in parts]),
            )
        for state in (self, other):
            caches.fit(state.cache, length, source_length)
        caches.append_rows(self.cache, [other.cache])
        masks = [pad(state.mask, (length - state.length, 0)) for state in (self, other)]
        self.mask = torch.cat(masks)


def _widened(source: Source, length: int) -> Source:
    missing = length - source.mask.shape[1]
    return Source(
        states=pad(source.states, (0, 0, 0, missing)), mask=pad(source.mask, (0, missing))
    )
