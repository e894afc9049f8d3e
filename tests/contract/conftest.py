"""Programs in processes of their own, against the server of a test."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GRPCURL = str(Path(sys.executable).with_name("grpcurl"))
PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


async def _run(command: tuple[str, ...], env: Mapping[str, str] | None) -> tuple[int, bytes, bytes]:
    """Run a program at the repository's root while the server goes on.

    Returns its status, what it wrote, and what it complained of. A test that ends takes it along.
    """
    here = {key: value for key, value in os.environ.items() if key.lower() not in PROXIES}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=here if env is None else env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        written, complaints = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, written, complaints


@pytest.fixture
def run() -> Callable[..., Awaitable[bytes]]:
    """Runs a program while the server goes on; returns what it wrote, fails if it failed."""

    async def call(*command: str, env: Mapping[str, str] | None = None) -> bytes:
        status, written, complaints = await _run(command, env)
        assert status == 0, complaints.decode()
        return written

    return call


@pytest.fixture
def grpcurl() -> Callable[..., Awaitable[tuple[int, str]]]:
    """Runs grpcurl without TLS; returns its status and all that it wrote."""

    async def call(*arguments: str) -> tuple[int, str]:
        status, written, complaints = await _run((GRPCURL, "-plaintext", *arguments), None)
        return status, (written + complaints).decode()

    return call
