"""`GET /metrics`: what Prometheus scrapes of an ingress, whichever protocols it speaks."""

import asyncio
import contextlib
from typing import cast

import orjson
from prometheus_client import REGISTRY, generate_latest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.runtime import NativeHttp
from rayserve_platform.edge.exchange import Exchange, Headers, status_of
from rayserve_platform.edge.fetch import fetch
from rayserve_platform.edge.observe import merge

PATH = "/metrics"


class MetricsHttp:
    """Answers with this replica's metrics, and those of the engines behind it.

    Args:
        catalog: the models served.
        engine_elsewhere: the engines live in other processes, so that their metrics must be asked
            for; otherwise they are in this process's own registry.
    """

    name = "metrics"
    exempt = frozenset({PATH})
    probes: frozenset[str] = frozenset()

    def __init__(self, catalog: Catalog, *, engine_elsewhere: bool) -> None:
        self._catalog = catalog
        self._elsewhere = engine_elsewhere

    def claims(self, path: str) -> bool:
        """Say whether it is the one path."""
        return path == PATH

    def error(self, error: PlatformError, request_id: str) -> tuple[int, Headers, bytes]:
        """Render an error for whoever scrapes."""
        body = orjson.dumps({"detail": error.message, "id": request_id})
        return status_of(error), [(b"content-type", b"application/json")], body

    async def handle(self, exchange: Exchange) -> None:
        """Answer a GET."""
        exchange.record.route = PATH
        if exchange.scope["method"] not in ("GET", "HEAD"):
            content = {"detail": "Method Not Allowed"}
            return await exchange.json(405, content, [(b"allow", b"GET, HEAD")])
        registry = REGISTRY.restricted_registry(_own()) if self._elsewhere else REGISTRY
        text = await asyncio.to_thread(generate_latest, registry)
        if self._elsewhere:
            text = merge([text, *await self._engines()])
        return await exchange.bytes(200, text, b"text/plain; version=0.0.4; charset=utf-8")

    async def _engines(self) -> list[bytes]:
        """Ask the engines behind this ingress; one that does not answer is left out."""
        texts: list[bytes] = []
        with contextlib.suppress(PlatformError):
            for served in await self._catalog.served():
                if f"GET {PATH}" in served.card.native:
                    with contextlib.suppress(PlatformError):
                        texts.append(await fetch(cast("NativeHttp", served.runtime), PATH))
        return texts


def _own() -> list[str]:
    """Names of the samples that the edge and the protocols keep in this process."""
    samples = (sample.name for family in REGISTRY.collect() for sample in family.samples)
    return sorted({name for name in samples if name.startswith(("rayserve_", "tgi_"))})
