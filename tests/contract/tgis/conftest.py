"""The TGIS ingress over gRPC and HTTP on real sockets, in front of a fake runtime."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from rayserve_platform.pb.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from rayserve_platform.settings.app import Ingress
from tests.conftest import fake_runtime
from tests.transports import Served, both_transports

ADD = [add_GenerationServiceServicer_to_server]


@contextlib.asynccontextmanager
async def tgis(*runtimes: Any, **ingress: Any) -> AsyncIterator[Served]:
    """Serve runtimes through the TGIS ingress over both transports."""
    settings = Ingress.model_validate({"protocols": ["tgis"], **ingress})
    async with both_transports(runtimes, settings, ADD) as served:
        yield served


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Serves a fake runtime: `ingress` are the ingress's settings, the others the engine's."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, ingress: dict[str, Any] | None = None, **engine: Any) -> Served:
            running = tgis(fake_runtime(**engine), **(ingress or {}))
            return await stack.enter_async_context(running)

        yield start
