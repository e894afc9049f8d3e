"""The form of a key."""

import hashlib
import hmac
import math
import string

from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.edge.keys.token import (
    ID_ALPHABET,
    ID_CHARS,
    SECRET_ALPHABET,
    SECRET_CHARS,
    digest,
    fingerprint,
    mint,
    parse,
    written,
)

IDS = st.text(ID_ALPHABET, min_size=ID_CHARS, max_size=ID_CHARS)
SECRETS = st.text(SECRET_ALPHABET, min_size=SECRET_CHARS, max_size=SECRET_CHARS)


def test_a_secret_has_256_bits_at_least():
    assert len(set(SECRET_ALPHABET)) == len(SECRET_ALPHABET)
    assert SECRET_CHARS * math.log2(len(SECRET_ALPHABET)) >= 256


def test_keys_that_are_drawn_are_all_different_and_of_the_form():
    drawn = [mint() for _ in range(2000)]
    assert len({key_id for key_id, _ in drawn}) == len({secret for _, secret in drawn}) == 2000
    for key_id, secret in drawn:
        assert parse(written(key_id, secret)) == (key_id, secret)
    letters = "".join(secret for _, secret in drawn)
    assert set(letters) == set(string.ascii_letters + string.digits)


@given(IDS, SECRETS)
def test_what_is_written_is_read_again(key_id, secret):
    assert parse(written(key_id, secret)) == (key_id, secret)


@given(IDS, SECRETS, st.integers(0, 59), st.characters())
def test_any_other_text_is_no_key(key_id, secret, place, char):
    token = written(key_id, secret)
    changed = token[:place] + char + token[place + 1 :]
    assert parse(token[:place] + token[place + 1 :]) is None
    assert parse(token[:place] + char + token[place:]) is None
    found = parse(changed)
    # What still has the form is another key, never the same.
    assert found is None or (
        written(*found) == changed and (changed == token) == (char == token[place])
    )


@given(st.text(max_size=200))
def test_arbitrary_text_never_raises(text):
    found = parse(text)
    assert found is None or written(*found) == text


def test_a_line_end_behind_a_key_is_not_part_of_it():
    assert parse(written(*mint()) + "\n") is None


@given(st.binary(min_size=32, max_size=80), IDS, SECRETS)
def test_the_digest_is_hmac_sha256_of_id_nul_secret(pepper, key_id, secret):
    message = key_id.encode() + b"\0" + secret.encode()
    assert digest(pepper, key_id, secret) == hmac.new(pepper, message, hashlib.sha256).digest()


@given(st.binary(min_size=32, max_size=64), st.binary(min_size=32, max_size=64))
def test_a_fingerprint_tells_peppers_apart_and_tells_nothing_else(one, other):
    # HMAC pads keys with NUL, so of peppers that end in it two may be one.
    same = one.rstrip(b"\0") == other.rstrip(b"\0")
    assert (fingerprint(one) == fingerprint(other)) == same
    assert len(fingerprint(one)) == 16
    assert one.hex() not in fingerprint(one)
