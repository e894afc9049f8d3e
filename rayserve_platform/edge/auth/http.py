"""Requests over HTTP as the check of tokens sees them, and what of them goes further."""

from urllib.parse import parse_qsl, urlencode

from rayserve_platform.core.runtime import Scope
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.guard import Guard
from rayserve_platform.edge.headers import folded, is_internal

OPEN = {"docs": ("/docs", "/openapi.json"), "metrics": ("/metrics",)}
"""The paths that `auth.public` opens."""


def credentials_of(scope: Scope) -> Credentials:
    """Return what a request brings."""
    headers = (
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    )
    return Credentials(headers, _query(scope))


def request_of(
    scope: Scope,
    *,
    path: str,
    id: str,  # noqa: A002  # a request's own word
    protocol: str,
) -> Request:
    """Return a request's attributes; `path` is below the application's route prefix."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    client = scope.get("client")
    return Request(
        id=id,
        protocol=protocol,
        method=scope["method"],
        path=path,
        query=_query(scope),
        scheme=scope.get("scheme", "http"),
        host=headers.get("host", ""),
        source=f"{client[0]}:{client[1]}" if client else "",
        headers=headers,
    )


def stripped(scope: Scope, guard: Guard | None) -> Scope:
    """Return a request without the headers and parameters that are not for protocols and engines.

    The platform's own headers are nobody else's to send; where tokens are checked, credentials end
    here.
    """
    secret = frozenset() if guard is None else guard.secret_headers | guard.responses.header_names
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if not is_internal(text := folded(name.decode("latin-1"))) and text not in secret
    ]
    changed: Scope = {**scope, "headers": kept}
    if guard is not None and guard.secret_parameters and _query(scope):
        pairs = parse_qsl(_query(scope), keep_blank_values=True)
        left = [(key, value) for key, value in pairs if key not in guard.secret_parameters]
        if len(left) < len(pairs):
            changed["query_string"] = urlencode(left).encode()
    return changed


def _query(scope: Scope) -> str:
    raw: bytes = scope.get("query_string", b"")
    return raw.decode("latin-1")
