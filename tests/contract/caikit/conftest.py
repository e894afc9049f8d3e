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
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.limits import Admission
from rayserve_platform.edge.rpc import Failed, RpcEdge
from rayserve_platform.pb import (
    caikit_info_service_pb2_grpc,
    caikit_nlp_service_pb2_grpc,
    reflection_pb2_grpc,
)
from rayserve_platform.protocols.caikit.http import CaikitHttp
from rayserve_platform.protocols.caikit.tasks import STREAMED_TEXT_GENERATION
from rayserve_platform.serving.faces import STREAMS, UNARY, rpc_protocols
from rayserve_platform.settings.app import Ingress
from tests.conftest import CancelledByClient, fake_runtime, listening

MODEL = "all-minilm-l6-v2-caikit"
TIMEOUT_S = 60
"""What takes longer hangs: the test fails."""


class Context:
    """What Serve hands to an ingress with an RPC (`ray.serve.grpc_util.RayServegRPCContext`)."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = [(key, value) for key, value in metadata]
        self.code: grpc.StatusCode | None = None
        self._details = ""
        self.trailing: list[tuple[str, str]] = []

    def invocation_metadata(self) -> list[tuple[str, Any]]:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def set_trailing_metadata(self, trailing: list[tuple[str, str]]) -> None:
        self.trailing = trailing


class Servicer:
    """Forwards every RPC to the edge, as a replica of Serve does."""

    def __init__(self, edge: RpcEdge) -> None:
        for name in UNARY:
            setattr(self, name, _unary(edge, name))
        for name in STREAMS:
            setattr(self, name, _stream(edge, name))
        self._edge = edge

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """What a service has and no protocol answers."""
        return _unary(self._edge, name)


def _unary(edge: RpcEdge, name: str) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Any:
        own = Context(context.invocation_metadata())
        answered = await edge.unary(name, request, own)
        if own.code is not None:
            await context.abort(own.code, own.details(), tuple(own.trailing))
        return answered

    return answer


def _stream(edge: RpcEdge, name: str) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        own = Context(context.invocation_metadata())
        try:
            async for message in edge.stream(name, request, own):
                yield message
        except Failed:
            assert own.code is not None
            await context.abort(own.code, own.details(), tuple(own.trailing))

    return answer


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
async def caikit(*runtimes: Any, **ingress: Any) -> AsyncIterator[Caikit]:
    """Serve runtimes through the Caikit ingress over both transports."""
    settings = Ingress.model_validate({"protocols": ["caikit"], **ingress})
    catalog = Catalog(runtimes)
    admission = Admission(settings.limits)
    edge = HttpEdge([CaikitHttp(catalog, docs=settings.docs)], settings, admission)
    rpc = RpcEdge(rpc_protocols(settings, catalog), admission, access_log=False)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(CancelledByClient(edge)))
        target = await stack.enter_async_context(_grpc(rpc))
        http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, verify=False, trust_env=False)
        await stack.enter_async_context(http)
        channel = grpc.aio.insecure_channel(target)
        await stack.enter_async_context(channel)
        yield Caikit(url=url, target=target, http=http, channel=channel)


@contextlib.asynccontextmanager
async def _grpc(edge: RpcEdge) -> AsyncIterator[str]:
    server = grpc.aio.server()
    servicer: Any = Servicer(edge)
    caikit_nlp_service_pb2_grpc.add_NlpServiceServicer_to_server(servicer, server)
    caikit_info_service_pb2_grpc.add_InfoServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    # Serve adds version 1alpha of reflection by itself.
    names = ("caikit.runtime.Nlp.NlpService", "caikit.runtime.info.InfoService")
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


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
