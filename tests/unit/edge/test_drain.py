"""A refusal waits for the end of the body, or a proxy would have to break the request off."""

import asyncio
from typing import Any

import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge import exchange
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress

LENGTH = [(b"content-length", b"30")]
CHUNKED = [(b"transfer-encoding", b"chunked")]


async def refused(
    make_fake: Any, headers: list[tuple[bytes, bytes]], parts: list[bytes], *, ends: bool = True
) -> tuple[int, int]:
    """Ask for what is not there; return the status, and how many parts had been read by then."""
    settings = Ingress.model_validate({"limits": {"max_body_mib": 100 / 2**20}})
    faces = http_protocols(settings, Catalog([make_fake()]), engine_elsewhere=False)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/unknown",
        "raw_path": b"/unknown",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
    }
    seen: list[tuple[int, int]] = []
    given = 0

    async def receive() -> dict[str, Any]:
        nonlocal given
        if given == len(parts):
            assert not ends
            await asyncio.Event().wait()
        given += 1
        more = not ends or given < len(parts)
        return {"type": "http.request", "body": parts[given - 1], "more_body": more}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append((message["status"], given))

    await HttpEdge(faces, settings)(scope, receive, send)
    [found] = seen
    return found


@pytest.mark.parametrize("headers", [LENGTH, CHUNKED])
async def test_a_body_is_read_to_its_end_before_it_is_refused(
    make_fake: Any, headers: list[tuple[bytes, bytes]]
) -> None:
    assert await refused(make_fake, headers, [b"a" * 10] * 3) == (404, 3)


@pytest.mark.parametrize(
    "headers",
    [[], [(b"content-length", b"0")], [(b"content-length", b"101")], [*LENGTH, (b"expect", b"x")]],
)
async def test_a_body_that_need_not_come_is_not_waited_for(
    make_fake: Any, headers: list[tuple[bytes, bytes]]
) -> None:
    assert await refused(make_fake, headers, [b"a" * 10] * 3) == (404, 0)


async def test_no_more_is_read_than_a_body_may_have(make_fake: Any) -> None:
    assert await refused(make_fake, CHUNKED, [b"a" * 60] * 9) == (404, 2)


async def test_a_body_that_does_not_end_is_not_waited_for(
    make_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "DRAIN_S", 0.05)
    assert await refused(make_fake, LENGTH, [b"a" * 10], ends=False) == (404, 1)
