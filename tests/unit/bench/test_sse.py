import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.bench.sse import EventReader, has_content, is_error, output_tokens


def event(body: object, end: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(body).encode() + end


ROLE = event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
WORD = event({"choices": [{"delta": {"content": "word"}}]})
USAGE = event({"choices": [], "usage": {"completion_tokens": 3}})
DONE = b"data: [DONE]\n\n"
CHAT = ROLE + WORD + WORD + WORD + USAGE + DONE


def read(*pieces: bytes, parse: bool = True) -> EventReader:
    """Feed the pieces, one second apart."""
    reader = EventReader(parse=parse)
    for second, piece in enumerate(pieces, start=1):
        reader.feed(piece, float(second))
    reader.finish(float(len(pieces)))
    return reader


def test_events_are_counted_without_the_end_mark():
    reader = read(CHAT)
    assert (reader.events, reader.content_events, reader.done) == (5, 3, True)
    assert output_tokens(reader.last) == 3


@given(st.lists(st.integers(min_value=0, max_value=len(CHAT)), max_size=12))
def test_pieces_may_be_cut_anywhere(cuts: list[int]):
    edges = [0, *sorted(cuts), len(CHAT)]
    reader = read(*(CHAT[a:b] for a, b in pairwise(edges)))
    assert (reader.events, reader.content_events, reader.done) == (5, 3, True)
    assert output_tokens(reader.last) == 3
    assert len(reader.gaps_s) == 2


def test_first_content_is_not_the_role():
    reader = read(ROLE, WORD, WORD)
    assert reader.first_content_s == 2.0


def test_gaps_are_between_content_and_zero_within_one_read():
    reader = read(ROLE + WORD, WORD + WORD, WORD, USAGE, DONE)
    assert reader.gaps_s == [1.0, 0.0, 1.0]


def test_completions_text_is_content():
    reader = read(event({"choices": [{"text": ""}]}), event({"choices": [{"text": "x"}]}))
    assert (reader.first_content_s, reader.content_events) == (2.0, 1)


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning", "tool_calls"])
def test_every_kind_of_output_is_content(field: str):
    assert has_content(json.dumps({"choices": [{"delta": {field: ["x"]}}]}).encode())


@pytest.mark.parametrize(
    "payload", [b"", b"[1]", b"{", b'{"choices": 1}', b'{"choices": [1, {"delta": null}]}']
)
def test_malformed_payloads_hold_nothing(payload: bytes):
    assert not has_content(payload)
    assert output_tokens(payload) is None
    assert not is_error(payload)


def test_crlf_and_comments_and_other_fields_are_understood():
    block = b": ping\r\nevent: chunk\r\n" + event({"choices": [{"text": "x"}]}, b"\r\n\r\n") + DONE
    reader = read(block)
    assert (reader.events, reader.done) == (1, True)


def test_text_that_looks_like_an_event_is_not_one():
    reader = read(event({"choices": [{"text": "\ndata: [DONE]"}]}))
    assert (reader.events, reader.done) == (1, False)


def test_last_line_needs_no_end():
    reader = read(WORD, b"data: [DONE]")
    assert reader.done


def test_error_before_the_end_mark_is_the_last_payload():
    reader = read(WORD, event({"error": {"message": "no"}}) + DONE)
    assert is_error(reader.last)


def test_raw_streams_are_counted_unparsed():
    reader = read(b"data: a\n\ndata: b\n\n", b"data: c\n\n" + DONE, parse=False)
    assert (reader.events, reader.first_content_s) == (3, 1.0)
