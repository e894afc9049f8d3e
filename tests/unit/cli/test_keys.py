"""`rayserve keys` on a file, as a person runs it."""

import json
import stat
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from rayserve_platform.cli import main
from rayserve_platform.edge.keys.document import PEPPER_VARIABLE
from rayserve_platform.edge.keys.token import parse


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """Runs `rayserve keys` on a file of the test."""
    monkeypatch.delenv(PEPPER_VARIABLE, raising=False)
    monkeypatch.setenv("RAYSERVE_KEYS_FILE", str(tmp_path / "keys.json"))

    def run(*args: str, code: int = 0):
        done = CliRunner().invoke(main, ["keys", *args])
        assert done.exit_code == code, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done

    return run


def made(keys, *args: str) -> str:
    token: str = keys("create", "--principal", "alice", *args).stdout.strip()
    return token


def id_of(token: str) -> str:
    parsed = parse(token)
    assert parsed is not None
    return parsed[0]


def listed(keys):
    return {key["id"]: key for key in json.loads(keys("list", "--json").stdout)}


def test_standard_output_is_the_key_and_nothing_else(keys):
    done = keys("create", "--principal", "alice")
    assert done.stdout.endswith("\n")
    assert parse(done.stdout.removesuffix("\n")) is not None
    assert "not shown again" in done.stderr


def test_a_key_is_shown_once(keys, tmp_path):
    token = made(keys)
    secret = token.rsplit("_", 1)[1]
    shown = keys("list").output + keys("list", "--json").output
    shown += (tmp_path / "keys.json").read_text()
    assert secret not in shown
    assert (
        json.loads((tmp_path / "keys.json").read_text())["keys"][0]["digest"]
        not in keys("list", "--json").output
    )


def test_all_attributes_are_kept_and_listed(keys):
    token = made(
        keys,
        *("--group", "gold", "--group", "staff", "--model", "llama", "--protocol", "openai"),
        *(
            "--protocol",
            "tgis",
            "--expires",
            "2100-01-31",
            "--not-before",
            "2099-12-31T12:00+02:00",
        ),
        *("--note", "ci [bold]"),
    )
    key = listed(keys)[id_of(token)]
    assert key["principal"] == "alice"
    assert key["groups"] == ["gold", "staff"]
    assert key["models"] == ["llama"]
    assert key["protocols"] == ["openai", "tgis"]
    assert key["expires"] == "2100-01-31T00:00:00Z"
    assert key["not_before"] == "2099-12-31T12:00:00+02:00"
    assert key["state"] == "not yet"
    table = keys("list").stdout
    for word in (id_of(token), "alice", "gold, staff", "2100-01-31 00:00Z", "ci [bold]"):
        assert word in table


def test_a_span_counts_from_now(keys):
    before = datetime.now(UTC)
    token = made(keys, "--expires", "90d")
    expires = datetime.fromisoformat(listed(keys)[id_of(token)]["expires"])
    assert abs(expires - before - timedelta(days=90)) < timedelta(hours=1)


def test_json_holds_the_key_and_its_attributes(keys):
    found = json.loads(keys("create", "--principal", "bob", "--json").stdout)
    assert id_of(found["key"]) == found["id"]
    assert found["principal"] == "bob"
    assert found["models"] is found["expires"] is None
    assert "digest" not in found


def test_revoking_ends_a_key_and_leaves_the_others(keys):
    first, second, third = (made(keys) for _ in range(3))
    keys("revoke", id_of(first), id_of(second))
    states = {key_id: key["state"] for key_id, key in listed(keys).items()}
    assert states == {id_of(first): "disabled", id_of(second): "disabled", id_of(third): "active"}


def test_a_whole_key_stands_for_its_id_and_its_secret_is_not_repeated(keys):
    token = made(keys)
    done = keys("revoke", token)
    assert token.rsplit("_", 1)[1] not in done.output
    assert listed(keys)[id_of(token)]["state"] == "disabled"


def test_of_several_ids_with_a_wrong_one_none_is_revoked(keys):
    token = made(keys)
    done = keys("revoke", id_of(token), "nosuchkey123", code=1)
    assert "there is no key with the id 'nosuchkey123'" in done.stderr
    assert listed(keys)[id_of(token)]["state"] == "active"


def test_deleting_leaves_nothing(keys):
    first, second = made(keys), made(keys)
    keys("revoke", "--delete", id_of(first))
    assert set(listed(keys)) == {id_of(second)}


def test_rotating_gives_a_new_key_and_an_end_to_the_old(keys):
    old = made(keys, "--model", "llama", "--group", "gold")
    done = keys("rotate", id_of(old), "--overlap", "1h")
    new = done.stdout.strip()
    assert parse(new) is not None
    found = listed(keys)
    assert found[id_of(new)]["models"] == ["llama"]
    assert found[id_of(new)]["groups"] == ["gold"]
    assert found[id_of(old)]["state"] == found[id_of(new)]["state"] == "active"
    assert found[id_of(old)]["expires"] is not None
    assert f"{id_of(old)} ends " in done.stderr


def test_rotating_without_overlap_ends_the_old_at_once(keys):
    old = made(keys)
    assert "has ended" in keys("rotate", id_of(old), "--overlap", "0").stderr
    assert listed(keys)[id_of(old)]["state"] == "disabled"
    assert "create a new one" in keys("rotate", id_of(old), code=1).stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("create",), 2, "Missing option '--principal'"),
        (("create", "--principal", ""), 1, "principal: String should have at least 1 character"),
        (("create", "--principal", "a", "--protocol", "smtp"), 2, "is not one of"),
        (("create", "--principal", "a", "--expires", "soon"), 2, "is no moment; write 2027-01-31"),
        (("create", "--principal", "a", "--expires", "2001-01-01"), 1, "--expires: is in the past"),
        (("rotate", "x", "--overlap", "1y"), 2, "is no length of time"),
        (("rotate", "abcdefghijkl"), 1, "there is no key with the id 'abcdefghijkl'"),
        (("revoke",), 2, "Missing argument 'ID...'"),
        (("list", "--file", "/"), 2, "is a directory"),
        (("list", "--file", "/proc/self/mem"), 1, "can't read"),
    ],
)
def test_a_mistake_is_told_in_a_line(keys, args, code, words):
    done = keys(*args, code=code)
    assert words in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_without_a_place_it_asks_for_one(keys, monkeypatch):
    monkeypatch.delenv("RAYSERVE_KEYS_FILE")
    assert "say where the keys are: --file" in keys("list", code=2).stderr


def test_an_empty_list_says_how_to_begin(keys):
    done = keys("list")
    assert done.stdout == ""
    assert "rayserve keys create" in done.stderr
    assert json.loads(keys("list", "--json").stdout) == []


def test_a_broken_file_is_never_overwritten(keys, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text('{"keys": [')
    assert "no valid JSON" in keys("create", "--principal", "a", code=1).stderr
    assert path.read_text() == '{"keys": ['


def test_a_pepper_of_one_s_own_is_used(keys, tmp_path):
    pepper = tmp_path / "own"
    pepper.write_text("0123456789abcdef" * 2 + "\n")
    keys("create", "--principal", "a", "--pepper-file", str(pepper))
    assert not (tmp_path / "keys.json.pepper").exists()
    assert "can't read the pepper" in keys("create", "--principal", "b", code=1).stderr
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("command", [(), ("create",), ("list",), ("revoke",), ("rotate",)])
def test_every_command_explains_itself(keys, command):
    assert "Usage: " in keys(*command, "--help").stdout
