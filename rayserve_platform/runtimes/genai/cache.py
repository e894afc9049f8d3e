"""The memory for the tokens of all answers, which is never promised twice.

Where it runs out, the library (2026.4) takes an answer's memory away and computes its tokens anew
later, by the prompt's way of computing: unless all is exact, the answer may go on differently.
"""

from typing import Any

import numpy as np
import openvino
import openvino_genai

PROBE_TOKENS = 32
"""OpenVINO keeps as many in a block on a CPU, and 16 on a GPU."""


class Cache:
    """Counts the blocks of the cache that are promised to answers.

    Args:
        blocks: how many there are.
        block_tokens: tokens that fit into one.
    """

    def __init__(self, *, blocks: int, block_tokens: int) -> None:
        self._free = blocks
        self._block_tokens = block_tokens
        self.tokens = blocks * block_tokens

    def take(self, tokens: int) -> int | None:
        """Promise room for so many tokens: return its blocks, or None while there is none."""
        blocks = -(-tokens // self._block_tokens)
        if blocks > self._free:
            return None
        self._free -= blocks
        return blocks

    def give_back(self, blocks: int) -> None:
        """Take blocks back."""
        self._free += blocks


def measure(pipeline: Any) -> Cache:
    """Return the cache of an idle pipeline, which tells only what share of it was in use."""
    blocks = round(100 / _most_used(pipeline, 1))
    used = round(_most_used(pipeline, PROBE_TOKENS) * blocks / 100)
    return Cache(blocks=blocks, block_tokens=PROBE_TOKENS // used)


def _most_used(pipeline: Any, tokens: int) -> float:
    """Return the highest percentage that has ever been in use, after a prompt of so many tokens."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = 1
    config.ignore_eos = True
    prompt = openvino.Tensor(np.zeros((1, tokens), dtype=np.int64))
    handle = pipeline.add_request(0, prompt, config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    assert handle.get_status() == openvino_genai.GenerationStatus.FINISHED
    most: float = pipeline.get_metrics().max_cache_usage
    return most
