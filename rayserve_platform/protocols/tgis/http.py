"""What TGIS answers over HTTP: health, and the metrics that every ingress has."""

import orjson

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.exchange import Exchange, Headers, status_of


class TgisHttp:
    """The protocol as the edge sees it."""

    name = "tgis"
    exempt = probes = frozenset({"/health"})

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def claims(self, path: str) -> bool:
        """Say whether it is the one path."""
        return path in self.exempt

    def error(self, error: PlatformError, request_id: str) -> tuple[int, Headers, bytes]:
        """Render an error in the original router's shape."""
        body = orjson.dumps({"error": error.message})
        return status_of(error), [(b"content-type", b"application/json")], body

    async def handle(self, exchange: Exchange) -> None:
        """Answer a GET."""
        path, method = exchange.path, exchange.scope["method"]
        if path not in self.exempt:
            raise PlatformError(Code.NOT_FOUND, f"Unknown request URL: {method} {path}.")
        exchange.record.route = path
        if method not in ("GET", "HEAD"):
            return await exchange.json(405, {"error": "use GET"}, [(b"allow", b"GET, HEAD")])
        try:
            await self._catalog.check_health()
        except PlatformError:
            return await exchange.json(503, {"error": "unhealthy"})
        return await exchange.bytes(200, b"", b"text/plain")
