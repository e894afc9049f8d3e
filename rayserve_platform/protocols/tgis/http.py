"""What TGIS answers over HTTP: health and metrics, nothing else."""

import asyncio

import orjson
from prometheus_client import REGISTRY, generate_latest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.http import Exchange, Headers, status_of


class TgisHttp:
    """The protocol as the edge sees it; `metrics` says whether `/metrics` is served."""

    name = "tgis"
    exempt = frozenset({"/health", "/metrics"})

    def __init__(self, catalog: Catalog, *, metrics: bool) -> None:
        self._catalog = catalog
        self._has_metrics = metrics

    def claims(self, path: str) -> bool:
        """Say whether it is one of the two."""
        return path in self.exempt

    def error(self, error: PlatformError, request_id: str) -> tuple[int, Headers, bytes]:
        """Render an error in the original router's shape."""
        body = orjson.dumps({"error": error.message})
        return status_of(error), [(b"content-type", b"application/json")], body

    async def handle(self, exchange: Exchange) -> None:
        """Answer a GET of one of the two paths."""
        path, method = exchange.path, exchange.scope["method"]
        if path not in self.exempt or (path == "/metrics" and not self._has_metrics):
            raise PlatformError(Code.NOT_FOUND, f"Unknown request URL: {method} {path}.")
        exchange.record.route = path
        if method not in ("GET", "HEAD"):
            return await exchange.json(405, {"error": "use GET"}, [(b"allow", b"GET, HEAD")])
        if path == "/metrics":
            text = await asyncio.to_thread(generate_latest, REGISTRY)
            return await exchange.bytes(200, text, b"text/plain; version=0.0.4; charset=utf-8")
        try:
            await self._catalog.check_health()
        except PlatformError:
            return await exchange.json(503, {"error": "unhealthy"})
        return await exchange.bytes(200, b"", b"text/plain")
