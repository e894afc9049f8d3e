"""A refusal waits for the end of the body, or a proxy would have to break the request off."""

import asyncio
import json
from typing import Any

import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge import exchange
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.limits import Admission
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress

LENGTH = [(b"content-length", b"30")]
BROKEN = b"the connection ends"
CHUNKED = [(b"transfer-encoding", b"chunked")]


async def refused(
    make_fake: Any,
    headers: list[tuple[bytes, bytes]],
    parts: list[bytes],
    *,
    ends: bool = True,
    path: str = "/unknown",
    running: int = 0,
) -> tuple[int, int]:
    """Ask for what is not there; return the status, and how many parts had been read by then."""
    settings = Ingress.model_validate({"limits": {"max_body_mib": 100 / 2**20}})
    faces = http_protocols(settings, Catalog([make_fake()]), engine_elsewhere=False)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
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
        if parts[given - 1] is BROKEN:
            raise ConnectionResetError
        more = not ends or given < len(parts)
        return {"type": "http.request", "body": parts[given - 1], "more_body": more}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append((message["status"], given))

    admission = Admission(settings.limits)
    admission.running = running
    await HttpEdge(faces, settings, admission)(scope, receive, send)
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


async def test_a_client_that_leaves_meanwhile_is_written_down_as_gone(
    make_fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "rayserve.access"):
        asking = asyncio.create_task(refused(make_fake, LENGTH, [b"a" * 10], ends=False))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    [line] = [json.loads(text) for text in caplog.messages]
    assert (line["code"], line["client_gone"]) == (499, True)


async def test_a_body_that_breaks_off_changes_no_answer(make_fake: Any) -> None:
    assert await refused(make_fake, LENGTH, [b"a" * 10, BROKEN]) == (404, 2)


async def test_an_overload_is_answered_at_once(make_fake: Any) -> None:
    assert await refused(make_fake, LENGTH, [b"a" * 10], path="/v1/models", running=512) == (429, 0)
