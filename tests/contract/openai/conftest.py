"""The real OpenAI client, in a process of its own."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

CLIENT = Path(__file__).with_name("client.py")


@pytest.fixture
def ask(run) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Runs cases of `client.py` in one process; returns their results by name."""

    async def call(url: str, *cases: str) -> dict[str, Any]:
        written = await run(sys.executable, str(CLIENT), url, *cases)
        results: dict[str, Any] = orjson.loads(written)
        assert set(results) == set(cases)
        return results

    return call
