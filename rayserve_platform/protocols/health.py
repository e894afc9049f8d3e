"""`grpc.health.v1.Health`, for every gRPC client and probe.

Source: the gRPC health checking protocol (grpc/grpc, `doc/health-checking.md`): the empty service
name asks for the whole server; Check of an unknown service is NOT_FOUND, Watch answers
SERVICE_UNKNOWN.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckResponse

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code
from rayserve_platform.edge.rpc import STATUS

POLL_S = 2.0
WATCH_S = 30.0


class HealthRpc:
    """Reports the health of the runtimes behind an ingress.

    Args:
        services: full names of the gRPC services that this ingress serves.
    """

    def __init__(self, catalog: Catalog, services: tuple[str, ...] = ()) -> None:
        self._catalog = catalog
        self._services = frozenset({"", *services})

    async def check(self, request: Any, context: Any) -> Any:
        """Answer Check."""
        if request.service not in self._services:
            context.set_code(STATUS[Code.NOT_FOUND])
            context.set_details("")
            return HealthCheckResponse()
        return HealthCheckResponse(status=await self._status())

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answer Watch: the status now, and again whenever it changes.

        The stream ends after `WATCH_S`, and clients open another, as the protocol asks of them: a
        replica that drains waits for its open calls.
        """
        ends = time.monotonic() + WATCH_S
        unknown = HealthCheckResponse.SERVICE_UNKNOWN
        last = None
        while time.monotonic() < ends:
            known = request.service in self._services
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
