"""Prompts and lengths are held to the same rules by every engine."""

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Stopping, StopReason
from rayserve_platform.core.prompts import (
    byte_size,
    check_lengths,
    checked,
    limit_of,
    truncated,
)


def test_bytes_are_counted_and_half_a_character_has_none():
    assert byte_size("aé😀") == 7
    with pytest.raises(PlatformError, match="half of a surrogate pair") as caught:
        byte_size("a\ud83d")
    assert (caught.value.code, caught.value.param) == (Code.INVALID_ARGUMENT, "prompt")


@pytest.mark.parametrize("wrong", [-1, 5])
def test_ids_are_those_of_the_vocabulary(wrong):
    assert checked((0, 4), 5) == [0, 4]
    with pytest.raises(PlatformError, match=f"Token id {wrong} is not in this model's vocabulary"):
        checked((0, wrong), 5)


@pytest.mark.parametrize(
    ("count", "keeps_first", "kept"),
    [
        (9, True, [1, 2, 3, 4]),
        (4, False, [1, 2, 3, 4]),
        (2, False, [3, 4]),
        (2, True, [1, 4]),
        (1, True, [1]),
        (0, True, []),
    ],
)
def test_the_end_of_a_prompt_is_kept(count, keeps_first, kept):
    assert truncated([1, 2, 3, 4], count, keeps_first=keeps_first) == kept


@pytest.mark.parametrize(
    ("most", "least", "param"),
    [(0, 0, "max_new_tokens"), (None, -1, "min_new_tokens"), (2, 3, "min_new_tokens")],
)
def test_lengths_that_mean_nothing_are_refused_by_name(most, least, param):
    check_lengths(Stopping(max_new_tokens=3, min_new_tokens=3))
    with pytest.raises(PlatformError) as caught:
        check_lengths(Stopping(max_new_tokens=most, min_new_tokens=least))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        (None, (8, StopReason.TOKEN_LIMIT)),
        (9, (8, StopReason.TOKEN_LIMIT)),
        (8, (8, StopReason.MAX_TOKENS)),
    ],
)
def test_a_limit_is_the_requests_or_the_rooms(asked, limit):
    assert limit_of(asked, 8) == limit
