import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.bench.protobuf import field, fields, repeated_strings
from rayserve_platform.pb import generation_pb2 as pb


@pytest.mark.parametrize("texts", [["one"], ["", "zwölf", "x" * 127, "y" * 128, "z" * 70_000]])
def test_strings_are_written_as_protobuf_writes_field_1(texts: list[str]):
    assert repeated_strings(texts) == FieldMask(paths=texts).SerializeToString()


@given(tokens=st.integers(1, 2**32 - 1), seed=st.integers(1, 2**64 - 1), text=st.text(min_size=1))
def test_fields_are_written_and_read_as_protobuf_does(tokens: int, seed: int, text: str):
    written = field(2, tokens) + field(4, text) + field(10, seed)
    message = pb.GenerationResponse(generated_token_count=tokens, text=text, seed=seed)
    assert written == message.SerializeToString()
    assert fields(written) == {2: tokens, 4: text.encode(), 10: seed}


def test_numbers_of_a_fixed_size_are_passed_over():
    token = pb.TokenInfo(text="a", logprob=-1.5, rank=300).SerializeToString()
    assert fields(token) == {2: b"a", 3: b"\x00\x00\xc0\xbf", 4: 300}


def test_of_a_repeated_field_the_last_is_returned():
    assert fields(repeated_strings(["one", "two"])) == {1: b"two"}


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_message_that_ends_early_is_refused_unless_a_field_ends_there(cut: int):
    message = field(2, 300) + field(4, "text") + field(6, 7)
    if cut in (3, 9):
        assert fields(message[:cut])
    else:
        with pytest.raises(ValueError, match="ends within"):
            fields(message[:cut])


def test_a_wire_type_of_old_is_refused():
    with pytest.raises(ValueError, match="wire type 3"):
        fields(b"\x0b")
