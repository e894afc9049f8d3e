"""The TGIS ingress over gRPC and HTTP on real sockets, in front of a fake runtime."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.limits import Admission
from rayserve_platform.pb.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress
from tests.conftest import CancelledByClient, fake_runtime, listening
from tests.rpc import listening_rpc

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, kw_only=True)
class Tgis:
    """A server: `target` is its gRPC address."""

    target: str
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    runtime: Any


@contextlib.asynccontextmanager
async def tgis(*runtimes: Any, **ingress: Any) -> AsyncIterator[Tgis]:
    """Serve runtimes through the TGIS ingress over both transports."""
    settings = Ingress.model_validate({"protocols": ["tgis"], **ingress})
    catalog = Catalog(runtimes)
    admission = Admission(settings.limits)
    faces = http_protocols(settings, catalog, engine_elsewhere=True)
    edge = HttpEdge(faces, settings, admission)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(CancelledByClient(edge)))
        add = [add_GenerationServiceServicer_to_server]
        target = await stack.enter_async_context(listening_rpc(catalog, settings, add, admission))
        http = httpx.AsyncClient(base_url=url, timeout=60, verify=False, trust_env=False)
        await stack.enter_async_context(http)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        yield Tgis(target=target, http=http, channel=channel, runtime=runtimes[0])


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Tgis]]]:
    """Serves a fake runtime: `ingress` are the ingress's settings, the others the engine's."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, ingress: dict[str, Any] | None = None, **engine: Any) -> Tgis:
            running = tgis(fake_runtime(**engine), **(ingress or {}))
            return await stack.enter_async_context(running)

        yield start


@pytest.fixture
def grpcurl() -> Callable[..., Awaitable[tuple[int, str]]]:
    """Runs grpcurl beside the server, where the protos lie; returns its status and output."""
    program = Path(sys.executable).with_name("grpcurl")

    async def run(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        written, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, written.decode()

    return run
