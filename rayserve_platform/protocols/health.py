"""`grpc.health.v1.Health`, for every gRPC client and probe.

Source: the gRPC health checking protocol (grpc/grpc, `doc/health-checking.md`): the empty service
name asks for the whole server; Check of an unknown service is NOT_FOUND, Watch answers
SERVICE_UNKNOWN.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.rpc import STATUS, Call, Stream, Unary

POLL_S = 2.0
WATCH_S = 30.0


class HealthRpc:
    """Reports the health of the runtimes behind an ingress.

    Args:
        known: services that may be asked for by name; all are as well as the server as a whole.
    """

    name = "health"
    services = ("grpc.health.v1.Health",)
    exempt = True
    probes = frozenset({"Check", "Watch"})

    def __init__(self, catalog: Catalog, known: Collection[str] = ()) -> None:
        self._catalog = catalog
        self._known = frozenset({"", *known})
        self.unary: dict[str, Unary] = {"Check": self._check}
        self.streams: dict[str, Stream] = {"Watch": self._watch}

    def error(self, error: PlatformError) -> tuple[grpc.StatusCode, str]:
        """Return the plain status."""
        return STATUS[error.code], error.message

    async def _check(self, call: Call) -> Any:
        """Answer Check."""
        if call.request.service not in self._known:
            raise PlatformError(Code.NOT_FOUND, "")
        return HealthCheckResponse(status=await self._status())

    async def _watch(self, call: Call) -> AsyncGenerator[Any, None]:
        """Answer Watch: the status now, and again whenever it changes.

        The stream ends after `WATCH_S`, and clients open another, as the protocol asks of them: a
        replica that drains waits for its open calls.
        """
        ends = time.monotonic() + WATCH_S
        unknown = HealthCheckResponse.SERVICE_UNKNOWN
        last = None
        while time.monotonic() < ends:
            known = call.request.service in self._known
            status = await self._status() if known else unknown
            if status != last:
                yield HealthCheckResponse(status=status)
                last = status
            await asyncio.sleep(POLL_S)

    async def _status(self) -> Any:
        try:
            await self._catalog.check_health()
        except Exception:  # noqa: BLE001  # whatever it is, the engine is not well
            return HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse.SERVING
