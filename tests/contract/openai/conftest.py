"""Programs in processes of their own, against the server of a test."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

CLIENT = Path(__file__).with_name("client.py")


@pytest.fixture
def run() -> Callable[..., Awaitable[bytes]]:
    """Runs a program while the server goes on; returns what it wrote, fails if it failed."""

    async def call(*command: str) -> bytes:
        proxies = {"http_proxy", "https_proxy", "all_proxy"}
        env = {key: value for key, value in os.environ.items() if key.lower() not in proxies}
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            written, complaints = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == 0, complaints.decode()
        return written

    return call


@pytest.fixture
def ask(run) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Runs cases of `client.py` in one process; returns their results by name."""

    async def call(url: str, *cases: str) -> dict[str, Any]:
        written = await run(sys.executable, str(CLIENT), url, *cases)
        results: dict[str, Any] = orjson.loads(written)
        assert set(results) == set(cases)
        return results

    return call
