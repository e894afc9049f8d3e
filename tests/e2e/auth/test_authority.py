"""A token that is taken back and an authority that goes away, while many are asking."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from rayserve_platform.pb import generation_pb2 as fmaas
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.e2e.auth.conftest import REVIEW_TTL_S, REVIEWED, Authorities

pytestmark = pytest.mark.e2e
BODY = {"model": "fake", "prompt": "hi", "max_tokens": 2}
CLIENTS = 8
Asked = list[tuple[float, int]]


@asynccontextmanager
async def asking(url: str, tokens: Callable[[], str]) -> AsyncIterator[Asked]:
    """Ask all the time; yields when each request began and the status of its answer."""
    asked: Asked = []

    async def client(http: httpx.AsyncClient) -> None:
        while True:
            began, headers = time.monotonic(), {REVIEWED: tokens()}
            answer = await http.post("/v1/completions", json=BODY, headers=headers)
            asked.append((began, answer.status_code))

    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
        clients = [asyncio.create_task(client(http)) for _ in range(CLIENTS)]
        try:
            yield asked
        finally:
            for one in clients:
                one.cancel()
            ended = await asyncio.gather(*clients, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended)


def last(asked: Asked) -> set[int]:
    """Return the statuses of as many answers as there are clients, twice."""
    return {status for _, status in asked[-2 * CLIENTS :]}


async def test_no_request_is_served_when_a_tokens_time_in_the_cache_is_over(
    platform: Any, authorities: Authorities, eventually: Callable[..., Any]
) -> None:
    kube = authorities.kube
    kube.account("a-token", "models:alice")
    async with asking(f"{platform.url}/separate", lambda: "a-token") as asked:
        await eventually(lambda: len(asked) > 50 and last(asked) == {200})
        del kube.users["a-token"]
        revoked = time.monotonic()
        await eventually(lambda: last(asked) == {401})
        served = [began for began, status in asked if status == 200]
    assert {status for _, status in asked} == {200, 401}
    assert max(served) <= revoked + REVIEW_TTL_S


async def test_an_authority_that_is_down_is_told_to_all_until_it_is_back(
    platform: Any, authorities: Authorities, eventually: Callable[..., Any]
) -> None:
    kube, made = authorities.kube, iter(range(10**9))

    def new_token() -> str:
        token = f"token-{next(made)}"
        kube.account(token, "models:alice")
        return token

    async with asking(f"{platform.url}/separate", new_token) as asked:
        await eventually(lambda: len(asked) > 50)
        assert last(asked) == {200}
        authorities.call(kube.stop())
        await eventually(lambda: last(asked) == {503})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(platform.grpc, new_token())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        since = len(asked)
        await eventually(lambda: len(asked) > since + 50)
        assert {status for _, status in asked[since:]} == {503}
        authorities.call(kube.start())
        await eventually(lambda: last(asked) == {200})
        assert await generate(platform.grpc, new_token())
    assert {status for _, status in asked} == {200, 503}


async def generate(target: str, token: str) -> str:
    batch = fmaas.BatchedGenerationRequest(requests=[fmaas.GenerationRequest(text="hi")])
    metadata = [("application", "separate"), (REVIEWED, token)]
    async with grpc.aio.insecure_channel(target) as channel:
        stub = GenerationServiceStub(channel)
        answer = await stub.Generate(batch, metadata=metadata, timeout=60)
        return str(answer.responses[0].text)
