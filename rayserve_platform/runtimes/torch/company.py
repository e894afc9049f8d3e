"""Which answers a model can write together, found by trying.

Whether a row may stand beside longer ones depends on how a model counts positions and on what its
cache holds, and no attribute of transformers' models says so.
"""

from enum import StrEnum

import torch

from rayserve_platform.runtimes.torch.caches import is_regular
from rayserve_platform.runtimes.torch.network import Network

TOLERANCE = {torch.float32: 1e-3}
HALF_TOLERANCE = 0.1
"""Largest difference of two logits, in standard deviations of all, that is arithmetic's. A position
that is off by one makes several times as much."""


class Company(StrEnum):
    """Who may share a batch."""

    ANY = "answers of any length"
    EQUAL = "answers of equal length"
    NONE = "no two answers"


def find_company(network: Network, vocabulary: int) -> Company:
    """Write the same tokens alone and beside others, and compare the logits."""
    short, long = _prompt(3, vocabulary), _prompt(9, vocabulary)
    first, _ = network.prefill([short])
    if not is_regular(first.cache):
        return Company.NONE
    expected = network.decode(first, short[:1])[0]
    for company, beside, steps in ((Company.ANY, long, 2), (Company.EQUAL, short[::-1], 0)):
        state, _ = network.prefill([beside])
        for token in beside[:steps]:
            network.decode(state, [token])
        joining, _ = network.prefill([short])
        state.append(joining)
        found = network.decode(state, [beside[0], short[0]])[1]
        difference = (found - expected).abs().max() / expected.std()
        if float(difference) < TOLERANCE.get(network.dtype, HALF_TOLERANCE):
            return company
    return Company.NONE


def _prompt(length: int, vocabulary: int) -> list[int]:
    return [(7 + 5 * place) % vocabulary for place in range(length)]
