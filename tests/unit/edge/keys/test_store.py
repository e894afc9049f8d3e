"""Keys while serving: changes, bad files, and readers at the same time."""

import asyncio
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from rayserve_platform.edge.auth.verdict import Unavailable
from rayserve_platform.edge.keys import store as module
from rayserve_platform.edge.keys.change import create, revoke
from rayserve_platform.edge.keys.document import PEPPER_VARIABLE
from rayserve_platform.edge.keys.file import KeysInFile, pepper_path
from rayserve_platform.edge.keys.followed import FollowedFile
from rayserve_platform.edge.keys.store import ReloadingKeys
from rayserve_platform.edge.keys.token import mint, parse, written

LOOK_S = 0.01


@pytest.fixture(autouse=True)
def _no_pepper_of_the_environment(monkeypatch):
    monkeypatch.delenv(PEPPER_VARIABLE, raising=False)


def add(path: Path, principal: str = "alice") -> str:
    def verb(file, pepper):
        return create(file, pepper(), now=datetime.now(UTC), principal=principal)[::2]

    token: str = KeysInFile(path).update(verb)
    return token


def end(path: Path, token: str) -> None:
    parsed = parse(token)
    assert parsed is not None
    key_id = parsed[0]
    KeysInFile(path).update(lambda file, _: (revoke(file, key_id), None))


@pytest.fixture
async def follow():
    stores = []

    async def start(path: Path, pepper: Path | None = None) -> ReloadingKeys:
        store = ReloadingKeys(FollowedFile(path, pepper, look_s=LOOK_S))
        await store.start()
        stores.append(store)
        return store

    yield start
    for store in stores:
        await store.stop()


def stale() -> float | None:
    return REGISTRY.get_sample_value("rayserve_keys_stale")


async def test_a_new_key_counts_and_a_revoked_one_counts_no_more(tmp_path, follow, eventually):
    path = tmp_path / "keys.json"
    first = add(path)
    store = await follow(path)
    assert store.find(first).principal == "alice"
    second = add(path, "bob")
    await eventually(lambda: store.find(second) is not None)
    assert store.find(first) is not None
    end(path, first)
    await eventually(lambda: store.find(first) is None)
    assert store.find(second).principal == "bob"
    assert REGISTRY.get_sample_value("rayserve_keys") == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_text(path.read_text().replace("principal", "principel")),
        lambda path: path.unlink(),
        lambda path: pepper_path(path).write_text("another pepper" * 4),
        lambda path: pepper_path(path).unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["no json", "cut", "unknown", "gone", "other pepper", "no pepper", "directory"],
)
async def test_a_bad_reload_keeps_the_last_good_set_and_is_loud(
    tmp_path, follow, eventually, caplog, spoil
):
    path = tmp_path / "keys.json"
    token = add(path)
    store = await follow(path)
    assert stale() == 0
    spoil(path)
    await eventually(lambda: stale() == 1)
    assert store.find(token).principal == "alice"
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "the last 1 go on" in errors[0].getMessage()
    assert token not in caplog.text


async def test_the_log_tells_a_fault_once_and_again_when_it_is_another(
    tmp_path, follow, eventually, caplog, monkeypatch
):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    path = tmp_path / "keys.json"
    add(path)
    await follow(path)

    def failures() -> float:
        return REGISTRY.get_sample_value("rayserve_key_reloads_total", {"result": "failed"}) or 0

    path.write_text("{")
    before = failures()
    await eventually(lambda: failures() > before + 3)
    path.unlink()
    await eventually(lambda: "No such file" in caplog.text)
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 2


async def test_a_mended_file_counts_again(tmp_path, follow, eventually):
    path = tmp_path / "keys.json"
    token = add(path)
    store = await follow(path)
    good = path.read_bytes()
    path.write_text("[]")
    await eventually(lambda: stale() == 1)
    path.write_bytes(good)
    other = add(path, "bob")
    await eventually(lambda: store.find(other) is not None)
    assert stale() == 0
    assert store.find(token) is not None


async def test_without_any_keys_every_request_is_unavailable_until_there_are(
    tmp_path, follow, eventually, monkeypatch
):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    path = tmp_path / "keys.json"
    store = await follow(path)
    with pytest.raises(Unavailable, match="no API keys could be read yet"):
        store.find(written(*mint()))
    assert store.find("rsp_x") is None, "what has not the form of a key is none of theirs"
    token = add(path)
    await eventually(lambda: stale() == 0)
    assert store.find(token) is not None


async def test_a_mounted_secret_is_followed_through_its_links(tmp_path, follow, eventually):
    """The kubelet writes a new directory and changes one link (`..data`) to it."""
    first, second = tmp_path / "..1", tmp_path / "..2"
    token = add((first.mkdir(), first / "keys.json")[1])
    second.mkdir()
    for name in ("keys.json", "keys.json.pepper"):
        (second / name).write_bytes((first / name).read_bytes())
    other = add(second / "keys.json", "bob")
    (tmp_path / "..data").symlink_to("..1")
    for name in ("keys.json", "keys.json.pepper"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    store = await follow(tmp_path / "keys.json")
    assert store.find(other) is None
    (tmp_path / "..data.new").symlink_to("..2")
    (tmp_path / "..data.new").rename(tmp_path / "..data")
    await eventually(lambda: store.find(other) is not None)
    assert store.find(token) is not None


async def test_readers_never_see_half_a_set_while_it_is_replaced(tmp_path, follow, eventually):
    """A key that stays is found at every moment, from other threads too."""
    path = tmp_path / "keys.json"
    steady = add(path, "steady")
    store = await follow(path)
    misses, looked, done = [], [], threading.Event()

    def read() -> None:
        while not done.is_set():
            found = store.find(steady)
            looked.append(1)
            if found is None or found.principal != "steady":
                misses.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(15):
            token = await asyncio.to_thread(add, path, f"p{number}")
            await eventually(lambda token=token: store.find(token) is not None)
            await asyncio.to_thread(end, path, token)
            await eventually(lambda token=token: store.find(token) is None)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert looked
    assert not misses


async def test_a_source_that_fails_in_an_unknown_way_is_followed_on(
    tmp_path, follow, eventually, monkeypatch
):
    monkeypatch.setattr(module, "RETRY_S", LOOK_S)
    path = tmp_path / "keys.json"
    add(path)

    async def fails(_self):
        raise KeyError("type")

    monkeypatch.setattr(FollowedFile, "changed", fails)
    store = await follow(path)
    token = add(path, "bob")
    await eventually(lambda: store.find(token) is not None)


async def test_stopping_ends_the_following(tmp_path, follow):
    path = tmp_path / "keys.json"
    add(path)
    store = await follow(path)
    await store.stop()
    assert len(asyncio.all_tasks()) == 1
