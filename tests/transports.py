"""One ingress behind real sockets, over HTTP and over gRPC."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import httpx

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpEdge, HttpProtocol
from rayserve_platform.edge.limits import Admission
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress
from tests.conftest import CancelledByClient, listening
from tests.rpc import AddServicer, listening_rpc

TIMEOUT_S = 60
"""What takes longer hangs: the test fails."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server: `url` is its HTTP address, `target` its gRPC address, `runtime` its first one."""

    url: str
    target: str
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    runtime: Any


@contextlib.asynccontextmanager
async def both_transports(
    runtimes: Sequence[Any],
    settings: Ingress,
    add: Sequence[AddServicer],
    *,
    face: Callable[[Catalog], HttpProtocol] | None = None,
    headers: Mapping[str, str] | None = None,
    **rpc: Any,
) -> AsyncIterator[Served]:
    """Serve runtimes over both transports, which share their limits, as in a replica of Serve.

    Args:
        add: the generated functions that add a servicer.
        face: makes the only one over HTTP, where it is not what the settings ask for.
        headers: what the HTTP client sends with each request.
        rpc: what else `listening_rpc` is told.
    """
    catalog = Catalog(runtimes)
    admission = Admission(settings.limits)
    faces = http_protocols(settings, catalog, engine_elsewhere=True)
    edge = HttpEdge([face(catalog)] if face else faces, settings, admission)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(CancelledByClient(edge)))
        target = await stack.enter_async_context(
            listening_rpc(catalog, settings, add, admission, **rpc)
        )
        # Plain HTTP: loading certificates would take longer than most tests.
        http = httpx.AsyncClient(
            base_url=url, timeout=TIMEOUT_S, verify=False, trust_env=False, headers=headers
        )
        await stack.enter_async_context(http)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        yield Served(url=url, target=target, http=http, channel=channel, runtime=runtimes[0])
