"""A cache entry is made once, whatever else runs or dies at the same time."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.cache import cache_root, made_once
from rayserve_platform.formats.progress import unheard

DEADLINE_S = 60.0

MAKER = """
import pathlib, sys, time
from rayserve_platform.formats.cache import made_once

root, name, wait_for = map(pathlib.Path, sys.argv[1:])
shared = root.parent

def make(directory):
    (directory / "half").write_text("1")
    with (shared / "makers").open("a") as log:
        log.write(f"{name}\\n")
    while not wait_for.exists():
        time.sleep(0.01)
    (directory / "whole").write_text("2")

print(made_once(root, "entry", make, report=lambda phase, _: (shared / f"{name} waits").touch()))
"""


def start_maker(root: Path, name: str, wait_for: Path) -> subprocess.Popen[str]:
    """A process that makes the entry, but not before the file `wait_for` appears."""
    command = [sys.executable, "-c", MAKER, str(root), name, str(wait_for)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_make_an_entry_once_and_the_second_says_it_waits(tmp_path: Path) -> None:
    root, second_waits = tmp_path / "cache", tmp_path / "second waits"
    with start_maker(root, "first", second_waits) as first:
        wait_until((tmp_path / "makers").exists)
        with start_maker(root, "second", second_waits) as second:
            printed = [process.communicate(timeout=DEADLINE_S)[0] for process in (first, second)]

    assert printed == [f"{root / 'entry'}\n"] * 2
    assert (tmp_path / "makers").read_text() == "first\n"
    assert (root / "entry" / "whole").exists()


def test_kill_midway_leaves_no_entry_and_the_next_one_starts_over(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    with start_maker(root, "killed", tmp_path / "never") as process:
        wait_until((tmp_path / "makers").exists)
        process.send_signal(signal.SIGKILL)

    assert not (root / "entry").exists()
    assert list(root.glob(".entry.partial-*/half"))

    def make(directory: Path) -> None:
        assert list(directory.iterdir()) == []
        (directory / "whole").write_text("2")

    entry = made_once(root, "entry", make, report=unheard)
    assert [path.name for path in entry.iterdir()] == ["whole"]
    assert list(root.glob(".entry.partial-*")) == []


def test_failure_in_make_is_raised_and_cleaned_up(tmp_path: Path) -> None:
    def make(directory: Path) -> None:
        (directory / "half").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path, "entry", make, report=unheard)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_files_get_the_mode_the_umask_allows(tmp_path: Path) -> None:
    def make(directory: Path) -> None:
        (directory / "sub").mkdir()
        for name in ("private", "sub/private"):
            (directory / name).touch(mode=0o600)

    before = os.umask(0o027)
    try:
        entry = made_once(tmp_path, "entry", make, report=unheard)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((entry / name).stat().st_mode) for name in ("private", "sub")}
    assert modes == {"private": 0o640, "sub": 0o750}
    assert sorted(path.name for path in entry.iterdir()) == ["private", "sub"]


def test_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError, match="RAYSERVE_CACHE") as caught:
        made_once(tmp_path / "file" / "cache", "entry", lambda _: None, report=unheard)
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/own", "/xdg", "/own"),
        ("~/own", "/xdg", "/home/of/user/own"),
        (None, "/xdg", "/xdg/rayserve"),
        ("", "/xdg", "/xdg/rayserve"),
        (None, "relative", "/home/of/user/.cache/rayserve"),
        (None, None, "/home/of/user/.cache/rayserve"),
    ],
)
def test_cache_root_follows_environment(
    monkeypatch: pytest.MonkeyPatch, own: str | None, xdg: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/of/user")
    for name, value in (("RAYSERVE_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_root() == Path(expected)
