"""The Caikit ingress over HTTP and gRPC on real sockets, and its clients."""

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
from rayserve_platform.pb import caikit_info_service_pb2_grpc, caikit_nlp_service_pb2_grpc
from rayserve_platform.protocols.caikit.events import PING_S
from rayserve_platform.protocols.caikit.http import CaikitHttp
from rayserve_platform.protocols.caikit.tasks import STREAMED_TEXT_GENERATION
from rayserve_platform.protocols.metrics import MetricsHttp
from rayserve_platform.settings.app import Ingress
from tests.conftest import CancelledByClient, fake_runtime, listening
from tests.rpc import listening_rpc

MODEL = "all-minilm-l6-v2-caikit"
LLM = "smollm2-135m-instruct-caikit"
ADD = (
    caikit_nlp_service_pb2_grpc.add_NlpServiceServicer_to_server,
    caikit_info_service_pb2_grpc.add_InfoServiceServicer_to_server,
)
TIMEOUT_S = 60
"""What takes longer hangs: the test fails."""


@dataclass(frozen=True, kw_only=True)
class Caikit:
    """A server: `target` is its gRPC address."""

    url: str
    target: str
    http: httpx.AsyncClient
    channel: grpc.aio.Channel


async def call(server: Caikit, rpc: str, body: bytes, *metadata: tuple[str, str]) -> str:
    """Return the code of a call's status."""
    path = f"/caikit.runtime.Nlp.NlpService/{rpc}"
    kinds: Any = {"request_serializer": bytes, "response_deserializer": bytes}
    options: Any = {"metadata": metadata or (("mm-model-id", MODEL),), "timeout": TIMEOUT_S}
    try:
        if rpc == STREAMED_TEXT_GENERATION.rpc:
            async for _ in server.channel.unary_stream(path, **kinds)(body, **options):
                pass
        else:
            await server.channel.unary_unary(path, **kinds)(body, **options)
    except grpc.aio.AioRpcError as error:
        code: str = error.code().name
        return code
    return "OK"


@contextlib.asynccontextmanager
async def caikit(*runtimes: Any, ping_s: float = PING_S, **ingress: Any) -> AsyncIterator[Caikit]:
    """Serve runtimes through the Caikit ingress over both transports."""
    settings = Ingress.model_validate({"protocols": ["caikit"], **ingress})
    catalog = Catalog(runtimes)
    admission = Admission(settings.limits)
    face = CaikitHttp(
        catalog,
        max_new_tokens=settings.caikit.max_new_tokens,
        docs=settings.docs,
        ping_s=ping_s,
    )
    edge = HttpEdge([face, MetricsHttp(catalog, engine_elsewhere=True)], settings, admission)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(CancelledByClient(edge)))
        target = await stack.enter_async_context(listening_rpc(catalog, settings, ADD, admission))
        http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, verify=False, trust_env=False)
        await stack.enter_async_context(http)
        channel = grpc.aio.insecure_channel(target)
        await stack.enter_async_context(channel)
        yield Caikit(url=url, target=target, http=http, channel=channel)


@pytest.fixture
async def fake() -> AsyncIterator[Callable[..., Awaitable[Caikit]]]:
    """Serves a fake runtime under the recorded model's name: `engine` are its settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(*, ingress: dict[str, Any] | None = None, **engine: Any) -> Caikit:
            runtime = fake_runtime(**{"id": MODEL, "max_model_len": 256, **engine})
            return await stack.enter_async_context(caikit(runtime, **(ingress or {})))

        yield serve


@pytest.fixture
def run() -> Callable[..., Awaitable[tuple[int, str]]]:
    """Runs a program while the server goes on; returns its status and all that it wrote."""

    async def call(*command: str) -> tuple[int, str]:
        proxies = {"http_proxy", "https_proxy", "all_proxy"}
        env = {key: value for key, value in os.environ.items() if key.lower() not in proxies}
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            written, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, written.decode()

    return call
