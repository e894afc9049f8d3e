"""`grpc.reflection.v1.ServerReflection`: what services there are, for clients without proto files.

Serve answers version 1alpha of this service by itself (`grpc_options.enable_reflection`), but not
version 1, which newer clients try first. The messages of both are the same on the wire, so
grpcio-reflection's servicer answers for version 1 as well.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.edge.rpc import STATUS, Call, Stream, Unary
from rayserve_platform.pb import reflection_pb2 as v1


class ReflectionRpc:
    """Answers for the services given by their full names, and for itself."""

    name = "reflection"
    services = ("grpc.reflection.v1.ServerReflection",)
    exempt = True
    probes: frozenset[str] = frozenset()

    def __init__(self, services: Sequence[str]) -> None:
        names = sorted({*services, *self.services, reflection.SERVICE_NAME})
        self._servicer = reflection.ReflectionServicer(names)
        self.unary: dict[str, Unary] = {}
        self.streams: dict[str, Stream] = {"ServerReflectionInfo": self._info}

    def error(self, error: PlatformError) -> tuple[grpc.StatusCode, str]:
        """Return the plain status."""
        return STATUS[error.code], error.message

    async def _info(self, call: Call) -> AsyncGenerator[Any, None]:
        """Answer each request of the stream in turn."""
        async for request in call.request:
            older = reflection_pb2.ServerReflectionRequest.FromString(request.SerializeToString())
            # The servicer takes and makes iterators, looks descriptors up in memory, and has no
            # use for a context.
            (answer,) = self._servicer.ServerReflectionInfo(iter([older]), cast("Any", None))
            yield v1.ServerReflectionResponse.FromString(answer.SerializeToString())
