"""Text comes out a piece at a time, and in the end it is what the tokenizer makes of all tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.core.messages import Stopping
from rayserve_platform.core.writing import Writing


def decode(ids):
    """Bytes as tokens; 256 is a special token, which has no text."""
    return bytes(i for i in ids if i < 256).decode(errors="replace")


def written(ids, stopping, before=()):
    writing = Writing(decode, stopping, before)
    pieces, stopped = [], None
    for token_id in ids:
        stopped = writing.add(token_id)
        pieces.append(writing.release(ended=stopped is not None))
        if stopped is not None:
            return pieces, stopped
    writing.end()
    return [*pieces, writing.release(ended=True)], None


@given(st.lists(st.integers(0, 256), max_size=40), st.lists(st.integers(0, 127), max_size=9))
def test_any_tokens_make_the_text_of_all_of_them(ids, before):
    pieces, _ = written(ids, Stopping(), before)
    assert "".join(pieces) == decode(ids)


@given(st.text(max_size=30), st.text(min_size=1, max_size=3), st.booleans())
def test_no_text_behind_a_stop_sequence_goes_out(text, sequence, include):
    pieces, stopped = written(
        text.encode(), Stopping(stop_sequences=(sequence,), include_stop_sequence=include)
    )
    before, found, _ = text.partition(sequence)
    assert stopped == (found or None)
    assert "".join(pieces) == before + (found if include else "")


def test_a_character_goes_out_when_its_last_byte_has_come():
    pieces, _ = written("é€".encode(), Stopping())
    assert pieces == ["", "é", "", "", "€", ""]


def test_text_that_may_become_a_stop_sequence_is_held_back():
    pieces, stopped = written(b"abcabd", Stopping(stop_sequences=("abd",)))
    assert pieces == ["", "", "a", "b", "c", ""]
    assert stopped == "abd"


@pytest.mark.parametrize("sequences", [("cd", "b"), ("b", "cd")])
def test_the_sequence_that_is_complete_first_stops(sequences):
    writing = Writing(lambda ids: "abcd" * len(ids), Stopping(stop_sequences=sequences), ())
    assert writing.add(1) == "b"
    assert writing.release(ended=True) == "a"


def test_a_sequence_that_was_complete_before_stopping_was_allowed_does_not_stop():
    writing = Writing(decode, Stopping(stop_sequences=("ab",)), ())
    assert writing.add(ord("a"), may_stop=False) is None
    assert writing.add(ord("b"), may_stop=False) is None
    assert writing.add(ord("c")) is None
    assert writing.release(ended=True) == "abc"
