"""The KServe ingress over REST and gRPC on real sockets, in front of fake runtimes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.limits import Admission
from rayserve_platform.pb.kserve_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress
from tests.conftest import CancelledByClient, listening
from tests.rpc import listening_rpc


@dataclass(frozen=True, kw_only=True)
class KServe:
    """A server: `url` is its REST address, `target` its gRPC address."""

    url: str
    target: str
    http: httpx.AsyncClient
    channel: grpc.aio.Channel


@contextlib.asynccontextmanager
async def kserve(*runtimes: Any, **ingress: Any) -> AsyncIterator[KServe]:
    """Serve runtimes through the KServe ingress over both transports."""
    settings = Ingress.model_validate({"protocols": ["kserve"], **ingress})
    catalog = Catalog(runtimes)
    admission = Admission(settings.limits)
    faces = http_protocols(settings, catalog, engine_elsewhere=True)
    edge = HttpEdge(faces, settings, admission)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(CancelledByClient(edge)))
        add = [add_GRPCInferenceServiceServicer_to_server]
        target = await stack.enter_async_context(
            listening_rpc(catalog, settings, add, admission, max_message_bytes=2**31 - 1)
        )
        # Bodies are looked at as they come: nothing is asked to be compressed.
        http = httpx.AsyncClient(
            base_url=url,
            timeout=60,
            verify=False,
            trust_env=False,
            headers={"accept-encoding": "identity"},
        )
        await stack.enter_async_context(http)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        yield KServe(url=url, target=target, http=http, channel=channel)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[KServe]]]:
    """Serves runtimes; by name, settings of the ingress."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*runtimes: Any, **ingress: Any) -> KServe:
            return await stack.enter_async_context(kserve(*runtimes, **ingress))

        yield start


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
