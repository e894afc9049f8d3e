"""The KServe ingress over REST and gRPC on real sockets, in front of fake runtimes."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from rayserve_platform.pb.kserve_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from rayserve_platform.settings.app import Ingress
from tests.transports import Served, both_transports

ADD = [add_GRPCInferenceServiceServicer_to_server]


@contextlib.asynccontextmanager
async def kserve(*runtimes: Any, **ingress: Any) -> AsyncIterator[Served]:
    """Serve runtimes through the KServe ingress over both transports."""
    settings = Ingress.model_validate({"protocols": ["kserve"], **ingress})
    # Bodies are looked at as they come: nothing is asked to be compressed.
    headers = {"accept-encoding": "identity"}
    async with both_transports(
        runtimes, settings, ADD, headers=headers, max_message_bytes=2**31 - 1
    ) as served:
        yield served


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Serves runtimes; by name, settings of the ingress."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*runtimes: Any, **ingress: Any) -> Served:
            return await stack.enter_async_context(kserve(*runtimes, **ingress))

        yield start
