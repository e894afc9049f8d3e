"""The ingress deployment: every protocol of an application, over HTTP and gRPC."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.runtime import Runtime
from rayserve_platform.edge.accounts import open_accounts
from rayserve_platform.edge.auth.opening import open_gate
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.limits import Admission
from rayserve_platform.edge.metrics import RAY_METRICS
from rayserve_platform.edge.rpc import RpcEdge
from rayserve_platform.runtimes import Engine, load
from rayserve_platform.serving.faces import STREAMS, UNARY, http_protocols, rpc_protocols
from rayserve_platform.serving.logs import configure_logging
from rayserve_platform.serving.remote import RemoteRuntime
from rayserve_platform.settings.app import App, Ingress


class IngressReplica:
    """One class, three topologies: what stands behind the catalog is all that differs.

    Serve finds the method of an RPC by the RPC's name; `UNARY` and `STREAMS` list them all.

    Args:
        settings: the ingress's own settings.
        engine: (kind, settings) of an engine to host in this process: `colocated`.
        runtime: handle of the runtime deployment: `separate`.
        apps: model name → application name: `gateway`.
    """

    async def __init__(  # type: ignore[misc]  # Ray allows it
        self,
        settings: Ingress,
        engine: tuple[str, App] | None = None,
        runtime: DeploymentHandle[Any] | None = None,
        apps: Mapping[str, str] | None = None,
    ) -> None:
        configure_logging()
        self._settings = settings
        self._engine: Engine | None = None
        served: list[Runtime | tuple[str, Runtime]] = []
        if engine is not None:
            self._engine = load(*engine, RAY_METRICS)
            await self._engine.start()
            served.append(self._engine)
        if runtime is not None:
            served.append(RemoteRuntime(lambda: runtime))
        for model, app in (apps or {}).items():
            served.append((model, RemoteRuntime(lambda app=app: serve.get_app_handle(app))))  # type: ignore[misc]
        guarded = settings.auth is not None
        self._catalog = Catalog(
            served,
            load_wait_s=settings.limits.load_wait_s,
            guarded=guarded,
            salted=settings.cache_salt == "principal",
        )
        self._gate = None
        if settings.auth is not None:
            self._gate = open_gate(settings.auth, self._catalog.targets)
            await self._gate.guard.start()
        # One count for both transports: a replica's work is the same whichever it came over.
        self._admission = Admission(settings.limits)
        rpcs = rpc_protocols(settings, self._catalog)
        self._accounts = open_accounts(settings)
        self._rpc = RpcEdge(
            rpcs,
            self._admission,
            access_log=settings.access_log,
            gate=self._gate,
            accounts=self._accounts,
        )

    async def __serve_build_asgi_app__(self) -> HttpEdge:
        """Called by Serve after the constructor. Serve's middleware echoes `x-request-id`."""
        elsewhere = self._engine is None
        protocols = http_protocols(self._settings, self._catalog, engine_elsewhere=elsewhere)
        return HttpEdge(
            protocols,
            self._settings,
            self._admission,
            gate=self._gate,
            accounts=self._accounts,
            echo_request_id=False,
        )

    async def check_health(self) -> None:
        """Called by Serve; a colocated engine that died takes its replica with it."""
        if self._engine is not None:
            await self._engine.check_health()

    async def stop(self) -> None:
        """Release a colocated engine, what tokens are checked with, files and connections."""
        await self._accounts.close()
        if self._gate is not None:
            await self._gate.guard.stop()
        if self._engine is not None:
            await self._engine.stop()


def _unary(name: str) -> Callable[..., Any]:
    async def answer(self: IngressReplica, request: Any, grpc_context: Any) -> Any:
        return await self._rpc.unary(name, request, grpc_context)

    answer.__name__ = name
    return answer


def _stream(name: str) -> Callable[..., Any]:
    async def answer(self: IngressReplica, request: Any, grpc_context: Any) -> AsyncIterator[Any]:
        async with aclosing(self._rpc.stream(name, request, grpc_context)) as messages:
            async for message in messages:
                yield message

    answer.__name__ = name
    return answer


for _name in UNARY:
    setattr(IngressReplica, _name, _unary(_name))
for _name in STREAMS:
    setattr(IngressReplica, _name, _stream(_name))
