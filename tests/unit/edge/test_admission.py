import asyncio

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.limits import Admission
from rayserve_platform.settings.app import Limits

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def test_a_place_is_given_back_however_the_request_ends():
    admission = Admission(Limits(max_concurrent_requests=1))
    for _ in range(3):
        with pytest.raises(LookupError), admission.permit():
            raise LookupError
    assert admission.running == 0
    with admission.permit():
        assert admission.running == 1


def test_one_more_than_the_limit_is_refused_with_the_limit_and_the_time_to_wait():
    admission = Admission(Limits(max_concurrent_requests=2, retry_after_s=3))
    with admission.permit(), admission.permit():
        with pytest.raises(PlatformError, match="2 requests are in progress") as caught:
            admission.permit().__enter__()
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert caught.value.retry_after_s == 3
        assert admission.running == 2


async def test_the_request_over_the_limit_is_429_while_probes_are_answered(
    serve_http, make_fake, eventually
):
    server = await serve_http(
        make_fake(first_token_s=600),
        ingress={"limits": {"max_concurrent_requests": 2, "retry_after_s": 7}},
    )
    runtime, client = server.runtime, server.client
    held = [asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
    await eventually(lambda: runtime.running == 2)

    refused = await client.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "7"
    error = refused.json()["error"]
    assert error["type"] == "rate_limit_error"
    assert error["code"] == "rate_limit_exceeded"
    assert "2 requests are in progress" in error["message"]

    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/metrics")).status_code == 200
    assert (await client.get("/v1/models")).status_code == 429

    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await eventually(lambda: runtime.running == 0)
    assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(("retry_after_s", "header"), [(0.2, "1"), (1.0, "1"), (2.6, "3")])
async def test_retry_after_is_whole_seconds_and_at_least_one(
    serve_http, make_fake, eventually, retry_after_s, header
):
    limits = {"max_concurrent_requests": 1, "retry_after_s": retry_after_s}
    server = await serve_http(make_fake(first_token_s=600), ingress={"limits": limits})
    held = asyncio.create_task(server.client.post("/v1/chat/completions", json=CHAT))
    await eventually(lambda: server.runtime.running == 1)
    refused = await server.client.get("/v1/models")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, header)
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)


async def test_an_overloaded_engine_is_429_with_retry_after(serve_http, make_fake):
    server = await serve_http(make_fake(overloaded=True))
    refused = await server.client.post("/v1/chat/completions", json=CHAT)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["message"] == "Model is overloaded"
