"""Asking a runtime's own HTTP server for a page, on nobody's behalf."""

import asyncio
from typing import Any

from rayserve_platform.core.errors import engine_unavailable
from rayserve_platform.core.runtime import Message, NativeHttp, Scope

TIMEOUT_S = 3.0


async def fetch(runtime: NativeHttp, path: str) -> bytes:
    """GET a path of a runtime's own server and return the body.

    Raises:
        PlatformError: UNAVAILABLE when it does not answer 200.
    """
    status = 0
    parts: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    try:
        async with asyncio.timeout(TIMEOUT_S):
            await runtime.native(_get(path), receive, send)
    except TimeoutError:
        status = 0
    if status != 200:
        raise engine_unavailable()
    return b"".join(parts)


def _get(path: str) -> Scope:
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
    }
    return scope
