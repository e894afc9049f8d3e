"""What goes wrong behind the protocol is told in Caikit's shape over both transports."""

import asyncio
from typing import Any

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.exchange import STATUS as HTTP_STATUS
from rayserve_platform.edge.rpc import STATUS as GRPC_STATUS
from tests.conftest import fake_runtime
from tests.contract.caikit.conftest import MODEL, caikit, call

GOOD = {"model_id": MODEL, "inputs": "hi"}


async def test_overload_is_told_in_caikits_shape_over_both_transports(fake):
    server = await fake(overloaded=True)
    answer = await server.http.post("/api/v1/task/embedding", json=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json().keys() == {"details", "code", "id"}
    assert "content-type" not in answer.headers
    assert await call(server, "EmbeddingTaskPredict", b"\x0a\x01x") == "RESOURCE_EXHAUSTED"


class Slow:
    """A runtime whose answers wait until the test is done with it."""

    def __init__(self, done: Any) -> None:
        self._done = done
        self._fake = fake_runtime(id=MODEL)
        self.waiting = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name)

    async def embed(self, request: Any) -> Any:
        self.waiting += 1
        await self._done.wait()
        return await self._fake.embed(request)


async def test_a_full_ingress_refuses_at_once_and_answers_those_it_has(eventually):
    done = asyncio.Event()
    slow = Slow(done)
    async with caikit(slow, limits={"max_concurrent_requests": 1}) as server:
        first = asyncio.create_task(server.http.post("/api/v1/task/embedding", json=GOOD))
        await eventually(lambda: slow.waiting == 1)
        answer = await server.http.post("/api/v1/task/embedding", json=GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["code"] == 429
        assert await call(server, "EmbeddingTaskPredict", b"") == "RESOURCE_EXHAUSTED"
        assert (await server.http.get("/health")).text == "OK"
        done.set()
        assert (await first).status_code == 200
        answer = await server.http.post("/api/v1/task/embedding", json=GOOD)
        assert answer.status_code == 200


class Failing:
    """A runtime that answers every request with one error."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._fake = fake_runtime(id=MODEL)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name)

    async def embed(self, request: Any) -> Any:
        raise self._error


@pytest.mark.parametrize("code", list(Code))
async def test_every_error_of_a_runtime_has_its_status_on_both_transports(code):
    unable = code is Code.UNIMPLEMENTED
    status = 400 if unable else HTTP_STATUS[code]
    name = "INVALID_ARGUMENT" if unable else GRPC_STATUS[code].name
    async with caikit(Failing(PlatformError(code, "so it is"))) as server:
        answer = await server.http.post("/api/v1/task/embedding", json=GOOD)
        assert answer.status_code == status
        content = answer.json()
        assert (content["details"], content["code"]) == ("so it is", status)
        assert await call(server, "EmbeddingTaskPredict", b"") == name


async def test_an_unknown_failure_tells_an_id_and_nothing_else():
    async with caikit(Failing(RuntimeError("/secret/path"))) as server:
        answer = await server.http.post("/api/v1/task/embedding", json=GOOD)
        assert answer.status_code == 500
        assert answer.json() == {
            "details": "internal error",
            "code": 500,
            "id": answer.headers["x-request-id"],
        }
        assert await call(server, "EmbeddingTaskPredict", b"") == "INTERNAL"
