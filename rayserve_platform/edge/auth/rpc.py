"""Calls over gRPC as the check of tokens sees them, and what of them goes further."""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import descriptor_pool

from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.guard import Guard
from rayserve_platform.edge.headers import folded, is_internal

Metadata = Iterable[tuple[str, str | bytes]]


def paths_of(services: Sequence[str]) -> dict[str, str]:
    """Return the whole name of each RPC by the last part of it, which is all that Serve tells."""
    pool = descriptor_pool.Default()
    found: dict[str, str] = {}
    for service in services:
        try:
            methods = pool.FindServiceByName(service).methods_by_name
        except KeyError:
            continue
        found |= {name: f"/{service}/{name}" for name in methods}
    return found


def credentials_of(sent: Metadata) -> Credentials:
    """Return what a call brings; binary metadata are no credentials."""
    return Credentials((name, value) for name, value in sent if isinstance(value, str))


def request_of(
    sent: Metadata,
    path: str,
    peer: str | None,
    *,
    id: str,  # noqa: A002  # a request's own word
    protocol: str,
) -> Request:
    """Return a call's attributes; `peer` as gRPC writes it."""
    headers = {name.lower(): value for name, value in sent if isinstance(value, str)}
    return Request(
        id=id,
        protocol=protocol,
        transport="grpc",
        path=path,
        host=headers.get(":authority", headers.get("host", "")),
        source=(peer or "").removeprefix("ipv4:").removeprefix("ipv6:"),
        headers=headers,
    )


def stripped(sent: Metadata, guard: Guard | None) -> dict[str, Any]:
    """Return metadata without what is not for protocols; see `edge.auth.http.stripped`."""
    secret = frozenset() if guard is None else guard.secret_headers | guard.responses.header_names
    return {
        name: value
        for name, value in sent
        if not is_internal(text := folded(name)) and text not in secret
    }
