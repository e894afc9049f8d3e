import pytest

LIMIT = 10 * 1024
INGRESS = {"limits": {"max_body_mib": LIMIT / 2**20}}


def body_of(size: int) -> bytes:
    frame = b'{"prompt": ""}'
    return frame[:-2] + b"a" * (size - len(frame)) + frame[-2:]


async def pieces(body: bytes):
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413_and_never_reaches_the_runtime(
    serve_http, make_fake, access_log, chunked
):
    server = await serve_http(make_fake(max_model_len=10**6), ingress=INGRESS)
    body = body_of(LIMIT + 1)
    response = await server.client.post(
        "/v1/completions",
        content=pieces(body) if chunked else body,
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 413
    error = response.json()["error"]
    assert error["param"] == "body"
    assert error["code"] == 413
    assert "larger than 0.00976562 MiB" in error["message"]
    assert server.runtime.seen == []
    assert [line["code"] for line in access_log()] == [413]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_exactly_the_limit_is_read(serve_http, make_fake, chunked):
    server = await serve_http(make_fake(max_model_len=10**6), ingress=INGRESS)
    body = body_of(LIMIT)
    assert len(body) == LIMIT
    response = await server.client.post(
        "/v1/completions",
        content=pieces(body) if chunked else body,
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 200
    assert response.json()["usage"]["prompt_tokens"] == LIMIT - len(b'{"prompt": ""}')


async def test_after_a_413_the_server_still_answers(serve_http):
    server = await serve_http(ingress=INGRESS)
    for _ in range(3):
        refused = await server.client.post("/v1/completions", content=body_of(LIMIT * 2))
        assert refused.status_code == 413
    answered = await server.client.post("/v1/completions", json={"prompt": "hi"})
    assert answered.status_code == 200
