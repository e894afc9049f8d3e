"""A set of keys as it is asked."""

import hmac
from datetime import UTC, datetime, timedelta

import pytest

from rayserve_platform.edge.keys.change import KeyFault, create, revoke
from rayserve_platform.edge.keys.ring import KeyRing
from rayserve_platform.edge.keys.token import mint, parse, written
from rayserve_platform.settings.keys import KeyFile

PEPPER = b"p" * 32
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now.timestamp()


def made(**attributes):
    return create(KeyFile(), PEPPER, now=NOW, **{"principal": "alice", **attributes})


def test_a_key_is_known_with_its_owner_and_its_rights():
    file, kept, token = made(groups=("gold",), models=("a", "b"), protocols=("tgis",), note="ci")
    found = KeyRing(file, PEPPER, Clock()).find(token)
    assert found is not None
    assert (found.id, found.principal, found.groups) == (kept.id, "alice", ("gold",))
    assert found.models == frozenset({"a", "b"})
    assert found.protocols == frozenset({"tgis"})
    assert found.identity == {"note": "ci"}


def test_a_key_without_scopes_has_all_of_them():
    file, _, token = made()
    found = KeyRing(file, PEPPER, Clock()).find(token)
    assert found is not None
    assert found.models is found.protocols is None


def test_a_wrong_secret_under_a_known_id_is_no_key():
    file, kept, token = made()
    ring = KeyRing(file, PEPPER, Clock())
    last = "a" if token[-1] != "a" else "b"
    assert ring.find(token[:-1] + last) is None
    assert ring.find(written(kept.id, mint()[1])) is None
    assert ring.find(written(*mint())) is None
    assert ring.find("") is None
    assert ring.find(token) is not None


def test_the_digest_that_is_kept_opens_nothing():
    file, kept, _ = made()
    ring = KeyRing(file, PEPPER, Clock())
    assert ring.find(kept.digest) is None
    assert ring.find(f"rsp_{kept.id}_{kept.digest}") is None


def test_an_unknown_id_is_compared_as_a_known_one_is(monkeypatch):
    file, kept, token = made()
    ring = KeyRing(file, PEPPER, Clock())
    compared = []

    def compare(one, other):
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    ring.find(token)
    ring.find(written(kept.id, mint()[1]))
    ring.find(written(*mint()))
    assert compared == [(32, 32)] * 3


def test_time_begins_and_ends_a_key_without_a_reload():
    file, _, token = made(not_before=NOW + DAY, expires=NOW + 2 * DAY)
    clock = Clock()
    ring = KeyRing(file, PEPPER, clock)
    assert ring.find(token) is None
    clock.now = NOW + DAY
    assert ring.find(token) is not None
    clock.now = NOW + 2 * DAY
    assert ring.find(token) is None


def test_a_revoked_key_is_unknown():
    file, kept, token = made()
    parsed = parse(token)
    assert parsed is not None
    assert KeyRing(revoke(file, kept.id), PEPPER, Clock()).find(token) is None


def test_another_pepper_is_a_fault_and_not_a_set_of_unknown_keys():
    file, _, _ = made()
    with pytest.raises(KeyFault, match="not the one"):
        KeyRing(file, b"q" * 32, Clock())
