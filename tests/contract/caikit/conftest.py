"""The Caikit ingress over HTTP and gRPC on real sockets, and its clients."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import pytest

from rayserve_platform.pb import caikit_info_service_pb2_grpc, caikit_nlp_service_pb2_grpc
from rayserve_platform.protocols.caikit.http import CaikitHttp
from rayserve_platform.protocols.caikit.tasks import STREAMED_TEXT_GENERATION
from rayserve_platform.settings.app import Ingress
from tests.conftest import fake_runtime
from tests.transports import TIMEOUT_S, Served, both_transports

MODEL = "all-minilm-l6-v2-caikit"
LLM = "smollm2-135m-instruct-caikit"
ADD = (
    caikit_nlp_service_pb2_grpc.add_NlpServiceServicer_to_server,
    caikit_info_service_pb2_grpc.add_InfoServiceServicer_to_server,
)


async def call(server: Served, rpc: str, body: bytes, *metadata: tuple[str, str]) -> str:
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
async def caikit(
    *runtimes: Any, ping_s: float | None = None, **ingress: Any
) -> AsyncIterator[Served]:
    """Serve runtimes through the Caikit ingress over both transports.

    `ping_s` is in place of the protocol's own, which no setting changes.
    """
    settings = Ingress.model_validate({"protocols": ["caikit"], **ingress})
    face = None
    if ping_s is not None:
        most = settings.caikit.max_new_tokens
        face = partial(CaikitHttp, max_new_tokens=most, ping_s=ping_s)
    async with both_transports(runtimes, settings, ADD, face=face) as served:
        yield served


@pytest.fixture
async def fake() -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Serves a fake runtime under the recorded model's name: `engine` are its settings."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(*, ingress: dict[str, Any] | None = None, **engine: Any) -> Served:
            runtime = fake_runtime(**{"id": MODEL, "max_model_len": 256, **engine})
            return await stack.enter_async_context(caikit(runtime, **(ingress or {})))

        yield serve
