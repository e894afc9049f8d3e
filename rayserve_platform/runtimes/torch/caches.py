"""Rows into and out of transformers' KV caches.

All rows of a cache end at the same place. A row that is shorter than the others is padded on the
left in the decoder's own attention, as `generate` pads prompts, and on the right in the attention
to an encoder's states.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

REGULAR = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers whose rows are slices of one tensor of keys and one of values, along the first axis."""


def new_cache(config: Any) -> Cache:
    """Return an empty cache for a model, as `generate` makes it."""
    decoder = config.get_text_config(decoder=True)
    own = DynamicCache(config=decoder)
    return (
        EncoderDecoderCache(own, DynamicCache(config=decoder)) if config.is_encoder_decoder else own
    )


def is_regular(cache: Any) -> bool:
    """Whether rows can be moved in and out; a recurrent layer has more than keys and values."""
    return isinstance(cache, DynamicCache | EncoderDecoderCache) and all(
        type(layer) in REGULAR for layer in (*_own(cache), *_cross(cache))
    )


def _own(cache: Any) -> list[Any]:
    layers: list[Any] = getattr(cache, "self_attention_cache", cache).layers
    return layers


def _cross(cache: Any) -> list[Any]:
    if not isinstance(cache, EncoderDecoderCache):
        return []
    layers: list[Any] = cache.cross_attention_cache.layers
    return layers


def keep_rows(cache: Any, rows: torch.Tensor) -> None:
    """Keep the rows with these numbers, in this order; a number may come several times."""
    cache.batch_select_indices(rows)


def fit(cache: Any, length: int, source_length: int) -> None:
    """Bring all rows to `length` positions, and to `source_length` in the encoder's states.

    What is cut off must be padding; what is added is.
    """
    for layer in _own(cache):
        stored = length
        if isinstance(layer, DynamicSlidingWindowLayer):
            stored = min(length, layer.sliding_window - 1)
            layer.cumulative_length = length
        missing = stored - layer.keys.shape[-2]
        # A negative padding cuts.
        layer.keys = pad(layer.keys, (0, 0, missing, 0))
        layer.values = pad(layer.values, (0, 0, missing, 0))
    for layer in _cross(cache):
        missing = source_length - layer.keys.shape[-2]
        layer.keys = pad(layer.keys, (0, 0, 0, missing))
        layer.values = pad(layer.values, (0, 0, 0, missing))


def append_rows(cache: Any, others: Sequence[Any]) -> None:
    """Add the rows of other caches, which must have been brought to the same lengths."""
    for part in (_own, _cross):
        for layer, *more in zip(part(cache), *map(part, others), strict=True):
            layer.keys = _stack(x.keys for x in (layer, *more))
            layer.values = _stack(x.values for x in (layer, *more))


def _stack(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(tensors), dim=0)
