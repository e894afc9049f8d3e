"""Which waiting texts to compute together. Pure.

Texts of one batch are padded to the longest, so each costs as much as that one; and each call costs
something by itself. The plan is the cheapest way to cut the waiting texts, sorted by length, into
batches; of those the one with the oldest text comes first, so that none waits for ever.
"""

from collections import Counter
from collections.abc import Sequence


def together(lengths: Sequence[int], *, call_tokens: int, limit: int) -> list[int]:
    """Return the places of the texts that make the next batch, in the order they came.

    Args:
        lengths: tokens of each waiting text, the oldest first; at least one.
        call_tokens: what a call costs by itself, in tokens.
        limit: most tokens in a batch, padding included; a longer text goes alone.
    """
    shortest, longest = _range(lengths, call_tokens, limit)
    fitting = [place for place, length in enumerate(lengths) if shortest <= length <= longest]
    width = max(lengths[place] for place in fitting)
    return fitting[: max(1, limit // width)]


def _range(lengths: Sequence[int], call_tokens: int, limit: int) -> tuple[int, int]:
    """Return the shortest and longest text of the batch that the oldest text belongs to.

    `cost[i]` is the least cost of the i shortest lengths, `begin[i]` where its last batch begins.
    """
    groups = sorted(Counter(lengths).items())
    cost, begin = [0], [0]
    for end, (width, _) in enumerate(groups, 1):
        texts, least, first = 0, -1, 0
        for start in range(end - 1, -1, -1):
            texts += groups[start][1]
            tokens = texts * width
            total = cost[start] + -(-tokens // limit) * call_tokens + tokens
            if least < 0 or total < least:
                least, first = total, start
        cost.append(least)
        begin.append(first)
    end = len(groups)
    while groups[begin[end]][0] > lengths[0]:
        end = begin[end]
    return groups[begin[end]][0], groups[end - 1][0]
