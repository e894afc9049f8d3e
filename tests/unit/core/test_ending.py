"""An answer ends at a stop sequence, a stop token, the end of text or its limit, in this order."""

import pytest

from rayserve_platform.core.ending import Ending
from rayserve_platform.core.messages import Stop, Stopping, StopReason
from rayserve_platform.core.writing import Writing

LETTERS = "abcdefgh"


def ended(ids, *, limit=8, **rules):
    """Return where and why an answer of letters ends, and its text; 7 (`h`) is the end of text."""
    stopping = Stopping(**rules)
    ending = Ending(
        rules=stopping,
        end_ids=frozenset({7}),
        limit=limit,
        limit_reason=StopReason.MAX_TOKENS,
        text_of=lambda token_id: LETTERS[token_id],
    )
    writing = Writing(lambda ids: "".join(LETTERS[i] for i in ids), stopping, [])
    for count, token_id in enumerate(ids, 1):
        stop = ending.after(writing, token_id, count)
        if stop is not None:
            return count, stop, writing.release(ended=True)
    return None


EOS = Stop(reason=StopReason.EOS, sequence="h", token_id=7)
SEQUENCE = Stop(reason=StopReason.STOP_SEQUENCE, sequence="bc")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, (4, EOS, "abc")),
        ({"limit": 2}, (2, Stop(reason=StopReason.MAX_TOKENS), "ab")),
        ({"stop_sequences": ("bc",)}, (3, SEQUENCE, "a")),
        ({"stop_sequences": ("bc",), "include_stop_sequence": True}, (3, SEQUENCE, "abc")),
        ({"stop_sequences": ("bc",), "min_new_tokens": 3}, (4, EOS, "abc")),
        (
            {"stop_token_ids": (2,)},
            (3, Stop(reason=StopReason.STOP_SEQUENCE, sequence="c", token_id=2), "ab"),
        ),
        ({"include_stop_sequence": True}, (4, EOS, "abch")),
        ({"ignore_eos": True}, None),
    ],
)
def test_where_and_why_an_answer_ends(rules, expected):
    assert ended([0, 1, 2, 7], **rules) == expected
