"""What the verbs of `rayserve keys` make of a file."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayserve_platform.edge.keys.change import (
    KeyFault,
    create,
    find,
    remove,
    revoke,
    rotate,
)
from rayserve_platform.edge.keys.document import new_pepper, read_keys, read_pepper, write_keys
from rayserve_platform.edge.keys.token import digest, parse
from rayserve_platform.settings.keys import ApiKey, KeyFile

PEPPER = b"p" * 32
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=40)
MOMENTS = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001  # Hypothesis wants them so
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
KEYS = st.builds(
    ApiKey,
    id=st.from_regex(r"\A[a-z0-9]{12}\Z"),
    digest=st.from_regex(r"\A[0-9a-f]{64}\Z"),
    principal=NAMES,
    groups=st.lists(NAMES, max_size=3).map(tuple),
    models=st.none() | st.lists(NAMES, min_size=1, max_size=3).map(tuple),
    protocols=st.none() | st.just(("openai", "tgis")),
    created=MOMENTS,
    not_before=st.none(),
    expires=st.none() | MOMENTS,
    disabled=st.booleans(),
    note=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


def made(file: KeyFile = KeyFile(), **attributes) -> tuple[KeyFile, ApiKey, str]:  # noqa: B008
    return create(file, PEPPER, now=NOW, **{"principal": "alice", **attributes})


@given(st.lists(KEYS, max_size=5, unique_by=lambda key: key.id))
def test_a_file_that_was_written_is_read_as_it_was(keys):
    file = KeyFile(pepper="0" * 16 if keys else None, keys=tuple(keys))
    assert read_keys(write_keys(file)) == file


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_a_word(raw):
    with pytest.raises(KeyFault):
        read_keys(raw)


def test_of_a_key_the_file_keeps_its_digest_and_never_its_secret():
    file, kept, token = made()
    parsed = parse(token)
    assert parsed is not None
    key_id, secret = parsed
    assert kept.id == key_id
    assert kept.digest == digest(PEPPER, key_id, secret).hex()
    raw = write_keys(file)
    assert secret.encode() not in raw
    assert PEPPER not in raw


def test_a_principal_may_have_several_active_keys():
    file, first, _ = made()
    file, second, _ = made(file)
    assert [key.id for key in file.keys] == [first.id, second.id]
    assert {key.state(NOW) for key in file.keys} == {"active"}


@pytest.mark.parametrize(
    ("attributes", "moment", "state"),
    [
        ({}, NOW, "active"),
        ({"expires": NOW + DAY}, NOW + DAY - timedelta(microseconds=1), "active"),
        ({"expires": NOW + DAY}, NOW + DAY, "expired"),
        ({"not_before": NOW + DAY}, NOW, "not yet"),
        ({"not_before": NOW + DAY}, NOW + DAY, "active"),
        ({"disabled": True, "expires": NOW + DAY}, NOW + 2 * DAY, "disabled"),
    ],
)
def test_a_key_counts_from_its_first_moment_until_its_end(attributes, moment, state):
    assert made(**attributes)[1].state(moment) == state


@pytest.mark.parametrize(
    "attributes",
    [
        {"principal": ""},
        {"principal": "a\nb"},
        {"groups": ("",)},
        {"models": ()},
        {"protocols": ("smtp",)},
        {"expires": NOW, "not_before": NOW},
        {"expires": datetime(2027, 1, 1)},  # noqa: DTZ001
        {"note": "x" * 257},
    ],
)
def test_a_wrong_attribute_is_refused(attributes):
    with pytest.raises(ValidationError):
        made(**attributes)


def test_a_pepper_that_the_keys_were_not_made_with_is_refused():
    file, _, _ = made()
    with pytest.raises(KeyFault, match="not the one that these keys were made with") as caught:
        create(file, b"q" * 32, now=NOW, principal="bob")
    assert "pppp" not in str(caught.value)
    assert "qqqq" not in str(caught.value)


def test_a_revoked_key_stays_in_the_file_and_counts_no_more():
    file, first, _ = made()
    file, second, _ = made(file)
    after = revoke(file, first.id)
    assert find(after, first.id).state(NOW) == "disabled"
    assert find(after, second.id) == second


def test_the_last_key_takes_the_pepper_s_fingerprint_with_it():
    file, first, _ = made()
    file, second, _ = made(file)
    file = remove(file, first.id)
    assert file.pepper is not None
    assert remove(file, second.id) == KeyFile()


def test_an_unknown_id_names_the_nearest():
    file, key, _ = made()
    near = key.id[:-1] + ("a" if key.id[-1] != "a" else "b")
    with pytest.raises(KeyFault, match=f"did you mean {key.id}"):
        revoke(file, near)


def test_rotation_gives_the_same_rights_and_ends_the_old_key_after_the_overlap():
    rights: dict[str, Any] = {
        "groups": ("gold",),
        "models": ("m",),
        "protocols": ("openai",),
        "load": True,
        "note": "ci",
    }
    file, old, token = made(**rights, expires=NOW + 90 * DAY)
    later = NOW + 30 * DAY
    file, new, second = rotate(file, PEPPER, old.id, now=later, overlap=DAY)
    assert second != token
    assert new.expires == later + 90 * DAY
    for name in ("principal", *rights):
        assert getattr(new, name) == getattr(old, name)
    ended = find(file, old.id)
    assert ended.state(later) == new.state(later) == "active"
    assert ended.state(later + DAY) == "expired"


def test_rotation_never_prolongs_the_old_key():
    file, old, _ = made(expires=NOW + DAY)
    file, _, _ = rotate(file, PEPPER, old.id, now=NOW, overlap=7 * DAY)
    assert find(file, old.id).expires == NOW + DAY


def test_rotation_without_overlap_ends_the_old_key_at_once():
    file, old, _ = made()
    file, _, _ = rotate(file, PEPPER, old.id, now=NOW, overlap=timedelta(0))
    assert find(file, old.id).state(NOW) == "disabled"


@pytest.mark.parametrize("overlap", [timedelta(0), DAY, 30 * DAY])
def test_rotation_never_lets_a_key_count_before_its_time(overlap):
    file, old, _ = made(not_before=NOW + 7 * DAY, expires=NOW + 20 * DAY)
    file, new, _ = rotate(file, PEPPER, old.id, now=NOW, overlap=overlap)
    assert (new.not_before, new.expires) == (old.not_before, old.expires)
    ended = find(file, old.id)
    assert ended.state(NOW) in ("not yet", "disabled")
    assert ended.state(NOW + overlap) in ("not yet", "disabled", "expired")
    assert ended.state(NOW + 19 * DAY) != "active" or overlap > 19 * DAY


@pytest.mark.parametrize("attributes", [{"disabled": True}, {"expires": NOW + DAY}])
def test_a_key_that_has_ended_is_not_rotated(attributes):
    file, old, _ = made(**attributes)
    with pytest.raises(KeyFault, match="create a new one"):
        rotate(file, PEPPER, old.id, now=NOW + DAY, overlap=DAY)


def test_a_fault_in_a_file_tells_where_and_no_digest():
    file, kept, _ = made()
    raw = write_keys(file).replace(b'"created"', b'"craeted"')
    with pytest.raises(KeyFault, match="did you mean 'created'") as caught:
        read_keys(raw)
    assert kept.digest not in str(caught.value)


def test_two_keys_with_one_id_are_refused():
    file, _, _ = made()
    with pytest.raises(KeyFault, match="stands twice"):
        read_keys(write_keys(file.model_copy(update={"keys": file.keys * 2})))


def test_peppers_are_long_and_different():
    assert read_pepper(new_pepper() + b"\n") != read_pepper(new_pepper())
    with pytest.raises(KeyFault, match="at least 32 bytes, this has 5"):
        read_pepper(b" short \n")
