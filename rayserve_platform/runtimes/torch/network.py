"""A model as the decoding loop sees it: prompts in, next-token logits out, one step at a time.

transformers 5.19 has continuous batching of its own (`generation.continuous_batching`), which can't
serve here: of the processors only temperature, top-k and top-p differ by request, the others see no
history, `do_sample` is one for all, sampling knows no seed, log probabilities are of the processed
scores, and it has no encoder-decoder models.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from rayserve_platform.formats.weights import unusable
from rayserve_platform.runtimes.torch.caches import is_regular, new_cache
from rayserve_platform.runtimes.torch.positions import RowPositions
from rayserve_platform.runtimes.torch.state import Source, State

PIECE_TOKENS = 256
"""Prompt tokens whose logits are held at a time, where those of a whole prompt are asked for."""

CACHE_NAMES = ("past_key_values", "cache_params")
"""What models call a cache; Mamba's kin use the second name."""


class Network:
    """Runs a transformers model with a language modeling head.

    Args:
        model: in evaluation mode, on its device.
        start_id: the token an encoder-decoder model's answers start from.
        pad_id: any token; it stands where nothing is seen.

    Raises:
        PlatformError: INVALID_ARGUMENT for a model whose cache is none of transformers' `Cache`.
    """

    def __init__(self, model: Any, *, start_id: int, pad_id: int) -> None:
        self._model = model
        self._start_id = start_id
        self._pad_id = pad_id
        self._accepts = frozenset(inspect.signature(model.forward).parameters)
        known = [name for name in CACHE_NAMES if name in self._accepts]
        if not known:
            raise unusable(
                f"a {model.config.model_type} model keeps no cache that this runtime knows"
            )
        self._cache_name = known[0]
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self._positions = RowPositions(model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[State, torch.Tensor]:
        """Read prompts; return their state and the logits of the next token, [prompts, vocabulary].

        The logits are the model's own, in float32.
        """
        ids, mask = self._padded(prompts, left=not self.is_encoder_decoder)
        cache = new_cache(self._model.config)
        if not self.is_encoder_decoder:
            state = State(cache=cache, mask=mask[:, :0])
            return state, self._forward(state, ids, mask)[:, -1]
        encoded = self._model.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True)
        source = Source(states=encoded.last_hidden_state, mask=mask)
        state = State(cache=cache, mask=mask[:, :0], source=source)
        return state, self.decode(state, [self._start_id] * len(prompts))

    def prefill_seen(
        self, prompt: Sequence[int], see: Callable[[torch.Tensor], None]
    ) -> tuple[State, torch.Tensor]:
        """Read one prompt of a decoder model, showing the logits after each of its tokens.

        Args:
            prompt: token ids.
            see: called with [tokens, vocabulary], in order.
        """
        ids, mask = self._padded([prompt], left=True)
        state = State(cache=new_cache(self._model.config), mask=mask[:, :0])
        logits = torch.empty(0)
        size = PIECE_TOKENS if is_regular(state.cache) else len(prompt)
        for piece in ids.split(size, dim=1):
            logits = self._forward(state, piece, torch.ones_like(piece), every=True)
            see(logits[0])
        return state, logits[:, -1]

    def decode(self, state: State, tokens: Sequence[int]) -> torch.Tensor:
        """Write one token a row; return the logits of the next, [rows, vocabulary]."""
        ids = torch.tensor(tokens, device=self.device)[:, None]
        return self._forward(state, ids, torch.ones_like(ids))[:, -1]

    def _forward(
        self, state: State, ids: torch.Tensor, mask: torch.Tensor, *, every: bool = False
    ) -> torch.Tensor:
        first = state.length == 0
        state.mask = torch.cat([state.mask, mask], dim=1)
        positions = (state.mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        given: dict[str, Any] = {self._cache_name: state.cache, "use_cache": True}
        if state.source is not None:
            given["encoder_outputs"] = BaseModelOutput(last_hidden_state=state.source.states)
            given |= {"attention_mask": state.source.mask, "decoder_attention_mask": state.mask}
        else:
            given["attention_mask"] = state.mask
        if "position_ids" in self._accepts:
            given["position_ids"] = positions
        if "logits_to_keep" in self._accepts and not every:
            given["logits_to_keep"] = 1
        # What `generate` calls: some models drop or add inputs here.
        inputs = self._model.prepare_inputs_for_generation(ids, is_first_iteration=first, **given)
        with self._positions.at(positions):
            logits: torch.Tensor = self._model(**inputs, return_dict=True).logits
        return (logits if every else logits[:, -1:]).float()

    def _padded(
        self, prompts: Sequence[Sequence[int]], *, left: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = max(map(len, prompts))
        ids = torch.full((len(prompts), length), self._pad_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            place = slice(length - len(prompt), None) if left else slice(len(prompt))
            ids[row, place] = torch.tensor(prompt)
            mask[row, place] = 1
        return ids.to(self.device), mask.to(self.device)
