"""Positions of their own for the rows of a decoder that counts them by its cache.

The decoders of BART and its kin (mBART, Pegasus, Marian, Blenderbot, …) take one position for the
whole batch, the length of the cache. Rows that joined at different times have different ones.
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch


class RowPositions:
    """Puts the rows' own positions into the decoder's `embed_positions`, where it has one."""

    def __init__(self, model: Any) -> None:
        self._rows: torch.Tensor | None = None
        if not model.config.is_encoder_decoder:
            return
        module = getattr(model.get_decoder(), "embed_positions", None)
        if module is None or "position_ids" not in inspect.signature(module.forward).parameters:
            return
        module.register_forward_pre_hook(self._ask, with_kwargs=True)
        module.register_forward_hook(self._answer)

    @contextlib.contextmanager
    def at(self, positions: torch.Tensor) -> Iterator[None]:
        """Use these positions, [rows, 1], inside the context."""
        self._rows = positions[:, 0]
        try:
            yield
        finally:
            self._rows = None

    def _ask(self, _: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Ask for one position a row, as if the rows were the tokens of one sequence."""
        if self._rows is not None:
            kwargs = kwargs | {"position_ids": self._rows}
        return args, kwargs

    def _answer(self, _: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        if self._rows is None:
            return output
        return output.reshape(len(self._rows), 1, -1)
