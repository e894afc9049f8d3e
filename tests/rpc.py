"""What the tests of gRPC protocols share: an edge behind a real server, as Serve puts it there."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.accounts import Accounts
from rayserve_platform.edge.auth.gate import Gate
from rayserve_platform.edge.limits import Admission
from rayserve_platform.edge.rpc import Failed, RpcEdge
from rayserve_platform.pb import reflection_pb2_grpc
from rayserve_platform.serving.faces import STREAMS, UNARY, rpc_protocols
from rayserve_platform.settings.app import Ingress

AddServicer = Callable[[Any, grpc.aio.Server], None]


class Context:
    """What Serve hands to an ingress with an RPC (`ray.serve.grpc_util.RayServegRPCContext`)."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = [(key, value) for key, value in metadata]
        self.code: grpc.StatusCode | None = None
        self._details = ""
        self.trailing: list[tuple[str, str]] = []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:40000"

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
        self._edge = edge
        for name in UNARY:
            setattr(self, name, self._unary(name))
        for name in STREAMS:
            setattr(self, name, self._stream(name))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """What a service has and no protocol answers."""
        return self._unary(name)

    def _unary(self, name: str) -> Callable[..., Any]:
        async def answer(request: Any, context: Any) -> Any:
            own = Context(context.invocation_metadata())
            answered = await self._edge.unary(name, request, own)
            if own.code is not None:
                await context.abort(own.code, own.details(), tuple(own.trailing))
            context.set_trailing_metadata(tuple(own.trailing))
            return answered

        return answer

    def _stream(self, name: str) -> Callable[..., Any]:
        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            own = Context(context.invocation_metadata())
            try:
                async for message in self._edge.stream(name, request, own):
                    yield message
                context.set_trailing_metadata(tuple(own.trailing))
            except Failed:
                assert own.code is not None
                await context.abort(own.code, own.details(), tuple(own.trailing))

        return answer


@contextlib.asynccontextmanager
async def listening_rpc(
    catalog: Catalog,
    settings: Ingress,
    add: Sequence[AddServicer],
    admission: Admission | None = None,
    *,
    max_message_bytes: int = 4 * 2**20,
    gate: Gate | None = None,
    accounts: Accounts | None = None,
) -> AsyncIterator[str]:
    """Serve an ingress's gRPC faces on a free port; yields the address.

    Args:
        add: the generated functions that add a servicer; health and reflection are added besides.
        max_message_bytes: gRPC's own limit of a message.
        gate, accounts: as for `RpcEdge`.
    """
    edge = RpcEdge(
        rpc_protocols(settings, catalog),
        admission or Admission(settings.limits),
        access_log=settings.access_log,
        gate=gate,
        accounts=accounts,
    )
    sizes = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
    server = grpc.aio.server(options=[(size, max_message_bytes) for size in sizes])
    servicer: Any = Servicer(edge)
    for add_servicer in (
        *add,
        health_pb2_grpc.add_HealthServicer_to_server,
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server,
    ):
        add_servicer(servicer, server)
    # Serve adds version 1alpha of reflection by itself.
    names = [service for face in rpc_protocols(settings, catalog) for service in face.services]
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
