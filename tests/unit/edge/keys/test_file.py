"""Keys in a file: its mode, its wholeness, its writers."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from filelock import FileLock

from rayserve_platform.edge.keys import file as module
from rayserve_platform.edge.keys.change import KeyFault, create
from rayserve_platform.edge.keys.document import PEPPER_VARIABLE
from rayserve_platform.edge.keys.file import KeysInFile, pepper_path
from rayserve_platform.settings.keys import KeyFile


@pytest.fixture(autouse=True)
def _no_pepper_of_the_environment(monkeypatch):
    monkeypatch.delenv(PEPPER_VARIABLE, raising=False)


def add(place: KeysInFile, principal: str = "alice") -> str:
    def verb(file, pepper):
        changed, _, token = create(file, pepper(), now=datetime.now(UTC), principal=principal)
        return changed, token

    token: str = place.update(verb)
    return token


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_every_file_is_its_owner_s_alone_whatever_the_umask(tmp_path, umask):
    path = tmp_path / "keys.json"
    before = os.umask(umask)
    try:
        add(KeysInFile(path))
        add(KeysInFile(path))
    finally:
        os.umask(before)
    for written in (path, pepper_path(path)):
        assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert len(KeysInFile(path).read().keys) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".keys.json.lock",
        "keys.json",
        "keys.json.pepper",
    ]


def test_a_change_leaves_a_file_to_those_who_could_read_it(tmp_path):
    path = tmp_path / "keys.json"
    add(KeysInFile(path))
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    add(KeysInFile(path))
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_a_change_that_would_take_a_file_from_its_owner_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    add(KeysInFile(path))
    before = path.read_bytes()

    def forbidden(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", forbidden)
    with pytest.raises(KeyFault, match="keys' owner or root"):
        add(KeysInFile(path))
    assert path.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "keys.json"
    add(KeysInFile(path))
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFault, match=r"can't write .*: No space left on device"):
        add(KeysInFile(path))
    assert path.read_bytes() == before
    assert not [
        p for p in tmp_path.iterdir() if p.name.startswith(".keys.json.") and p.suffix != ".lock"
    ]


ADD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from rayserve_platform.edge.keys.change import create
from rayserve_platform.edge.keys.file import KeysInFile
place = KeysInFile(Path(sys.argv[1]))
for number in range(10):
    place.update(lambda file, pepper: create(
        file, pepper(), now=datetime.now(UTC), principal=f"{sys.argv[2]}-{number}")[::2])
"""


def test_of_several_writers_at_once_no_key_is_lost_and_a_reader_sees_whole_files(tmp_path):
    path = tmp_path / "keys.json"
    add(KeysInFile(path))
    writers = [
        subprocess.Popen([sys.executable, "-c", ADD, str(path), str(number)]) for number in range(4)
    ]
    seen = [1]
    while any(writer.poll() is None for writer in writers):
        seen.append(len(KeysInFile(path).read().keys))
    assert [writer.returncode for writer in writers] == [0] * 4
    principals = {key.principal for key in KeysInFile(path).read().keys}
    assert principals == {"alice", *(f"{w}-{n}" for w in range(4) for n in range(10))}
    assert seen == sorted(seen)


def test_a_writer_that_holds_the_file_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.05)
    path = tmp_path / "keys.json"
    with FileLock(tmp_path / ".keys.json.lock"), pytest.raises(KeyFault, match="another process"):
        add(KeysInFile(path))


def test_a_link_is_followed_and_stays(tmp_path):
    real = tmp_path / "real.json"
    add(KeysInFile(real))
    link = tmp_path / "link.json"
    link.symlink_to(real)
    place = KeysInFile(link, pepper_path(real))
    add(place, "bob")
    assert link.is_symlink()
    assert [key.principal for key in KeysInFile(real).read().keys] == ["alice", "bob"]


def test_a_lost_pepper_is_never_made_anew_while_keys_depend_on_it(tmp_path):
    path = tmp_path / "keys.json"
    add(KeysInFile(path))
    pepper_path(path).unlink()
    with pytest.raises(KeyFault, match=r"can't read the pepper in .*: No such file or directory"):
        add(KeysInFile(path))
    assert not pepper_path(path).exists()


def test_the_environment_s_pepper_goes_before_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv(PEPPER_VARIABLE, "e" * 40)
    path = tmp_path / "keys.json"
    add(KeysInFile(path))
    assert not pepper_path(path).exists()
    monkeypatch.setenv(PEPPER_VARIABLE, "f" * 40)
    with pytest.raises(KeyFault, match="not the one"):
        add(KeysInFile(path))


def test_no_file_is_no_keys_and_a_directory_is_an_error(tmp_path):
    assert KeysInFile(tmp_path / "none.json").read() == KeyFile()
    with pytest.raises(KeyFault, match=r"can't read .*: Is a directory"):
        KeysInFile(tmp_path).read()
    with pytest.raises(KeyFault, match=r"can't write .*: there is no directory"):
        add(KeysInFile(tmp_path / "missing" / "keys.json"))


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text("{")
    with pytest.raises(KeyFault, match=r"keys\.json: no valid JSON"):
        KeysInFile(path).read()
