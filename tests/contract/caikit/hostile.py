"""What the tests of hostile input share: to send it, and to say what may come back."""

import asyncio
import functools
from typing import Any

from tests.contract.caikit.conftest import MODEL
from tests.contract.caikit.recordings import content

GOOD = {"model_id": MODEL, "inputs": "hi"}
BAD = frozenset({400, 404, 405, 413, 415, 422})
"""The statuses of a caller's mistakes."""


async def still_well(server: Any) -> None:
    answer = await server.http.post("/api/v1/task/embedding", json=GOOD)
    assert answer.status_code == 200


async def post(server: Any, path: str, body: bytes, kind: str = "application/json") -> Any:
    headers = {"content-type": kind}
    answer = await server.http.post(path, content=body, headers=headers)
    assert answer.status_code in BAD | {200}, answer.text
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        *pieces, (kind, last) = content(answer.text)
        assert all(kind == "event: message" for kind, _ in pieces)
        assert kind == "event: message" or last["code"] in BAD, last
    elif answer.status_code != 200:
        told = answer.json()
        assert told.keys() in (
            {"details", "code", "id"},
            {"details", "additional_info", "code", "id"},
            {"detail"},
        )
        assert told.get("code", answer.status_code) == answer.status_code
    return answer


def is_refused(answer: Any) -> bool:
    """Say whether an answer is an error, a stream's first event too."""
    return answer.status_code in BAD or answer.text.startswith("event: error")


async def in_this_loop(check: Any) -> None:
    """Run a property whose examples are coroutines of this loop, from a thread of its own."""
    loop = asyncio.get_running_loop()
    inner = check.hypothesis.inner_test

    @functools.wraps(inner)
    def in_loop(*args: Any, **kwargs: Any) -> None:
        asyncio.run_coroutine_threadsafe(inner(*args, **kwargs), loop).result()

    check.hypothesis.inner_test = in_loop
    await asyncio.to_thread(check)
