"""What the TLS edge refuses and takes off before Serve sees it."""

import json

import httpx
import pytest

ODD = (
    "/v1/models/../x",
    "/v1/models/%2e%2e/x",
    "/healthz/..//v1/models",
    "/v1//models",
    "/v1/%2fmodels",
    "/v1/./models",
    "/v1/models;a=b",
    "/v1/models%3b",
    "/v1/models/a%5cb",
    "/v1/models/%00",
    "/v1/models/%0d%0ax",
    "/v1/%252e%252e/models",
    "/v1/models/%zz",
    "/v1/models/%2",
)
SERVES_OWN = ("/-/healthz", "/-/routes", "/-/", "/%2d/routes", "/-%2froutes", "/-/ROUTES", "/-")
INTERNAL = {
    "x-forwarded-client-cert": "forged",
    "client-cert": "forged",
    "serve_multiplexed_model_id": "forged",
    "serve-multiplexed-model-id": "forged",
    "x-request-disconnect-disabled": "forged",
    "x-request-timeout-seconds": "forged",
    "x_request_timeout_seconds": "forged",
    "x_forwarded_client_cert": "forged",
    "x_rayserve_user": "forged",
    "x-forwarded-for": "forged",
    "x-real-ip": "forged",
    "forwarded": "forged",
}
PREFIXED = {
    "x-rayserve-user": "forged",
    "X-RaySERVE_user": "forged",
    "x-maas-user": "forged",
    "x-ext-auth-reason": "forged",
    "x-serve-router-target": "forged",
}


@pytest.mark.parametrize("path", ODD)
async def test_an_odd_path_is_refused(front, behind, path):
    edge = await front(behind.address)
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    answer = await edge.raw(request.encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), answer
    assert b"application/json" in head
    assert b'"code":400' in body
    assert behind.requests == []


@pytest.mark.parametrize("path", SERVES_OWN)
async def test_what_serve_answers_by_itself_is_not_there(front, behind, path):
    edge = await front(behind.address)
    request = f"GET {path}?a=b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    answer = await edge.raw(request.encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"Unknown request URL" in answer
    assert behind.requests == []


async def test_paths_of_models_are_handed_on_as_they_were_sent(front, behind):
    edge = await front(behind.address)
    paths = ["/v1/models/org%2Fmodel", "/v1/models/org/model", "/v1/models/100%25", "/v1/m:predict"]
    for path in [*paths, "/v1/models/with%20space", "/v1/models/mod%C3%A8le"]:
        assert (await edge.client.get(path)).status_code == 200
        assert behind.requests[-1]["path"] == path


async def test_headers_that_are_not_for_clients_are_taken_off(front, behind, server):
    edge = await front(behind.address)
    # nginx can't take off headers by the beginnings of their names.
    sent = INTERNAL if server == "nginx" else {**INTERNAL, **PREFIXED}
    await edge.client.get("/v1/models", headers={**sent, "x-request-id": "mine", "x-own": "kept"})
    [seen] = behind.requests
    assert "forged" not in str(seen)
    got = dict(seen["headers"])
    assert got["x-request-id"] == "mine"
    assert got["x-own"] == "kept"
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-proto"] == "https"


async def test_a_token_reaches_the_ingress_whole(front, behind):
    edge = await front(behind.address)
    token = "a" * 8192
    await edge.client.get("/v1/models", headers={"authorization": f"Bearer {token}"})
    assert dict(behind.requests[0]["headers"])["authorization"] == f"Bearer {token}"


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(front, behind):
    edge = await front(behind.address, max_body_bytes=1024)
    head = b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1025\r\n\r\n"
    answer = await edge.raw(head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 0.000976562 MiB" in answer
    assert behind.requests == []
    assert (await edge.client.post("/v1/x", content=b"a" * 1024)).status_code == 200


async def test_a_head_without_end_is_refused(front, behind):
    edge = await front(behind.address)
    try:
        answer = await edge.client.get("/v1/models", headers={"x-long": "a" * 200_000})
    except httpx.RemoteProtocolError:
        pass  # it had not been read to its end
    else:
        assert answer.status_code in (400, 431)
    assert behind.requests == []


async def test_the_log_tells_no_query_and_no_header(front, behind, eventually):
    edge = await front(behind.address)
    secret = {"authorization": "Bearer secret-one"}
    await edge.client.get("/v1/models?api_key=secret-two", headers=secret)
    await eventually(lambda: edge.log.read_text().endswith("}\n"))
    written = edge.log.read_text()
    line = json.loads(written.splitlines()[-1])
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/models", 200)
    assert "secret" not in written
