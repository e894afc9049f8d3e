"""What an ingress refuses by itself, whatever stands in front of it."""

import asyncio
import json

import httpx
import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.auth.http import stripped
from rayserve_platform.edge.shape import check_headers, check_path

HEADERS = [(b"host", b"a"), (b"content-length", b"0")]


def scope(path: str = "/v1/models", raw: str | None = None, headers: object = HEADERS):
    return {"path": path, "raw_path": (raw or path).encode(), "headers": headers}


async def raw(url: str, *lines: str) -> tuple[int, dict]:
    """Send a head that no HTTP client would; return the answer's status and body."""
    port = httpx.URL(url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode())
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("name", ["host", "authorization", "content-type"])
async def test_a_header_that_two_parties_may_read_differently_is_sent_once(serve_http, name):
    server = await serve_http()
    lines = ["GET /v1/models HTTP/1.1", "host: a", f"{name}: a", f"{name.upper()}: b"]
    status, body = await raw(server.url, *lines)
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert f"several {name} headers; send one" in body["error"]["message"]


def test_a_length_and_an_encoding_are_one_too_many():
    with pytest.raises(PlatformError, match="both 'content-length' and 'transfer-encoding'"):
        check_headers(scope(headers=[*HEADERS, (b"transfer-encoding", b"chunked")]))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/models/../x", None),
        ("/v1/models/..", None),
        ("/./v1/models", None),
        ("//v1/models", None),
        ("/v1/models;a=b", None),
        ("/v1/models/a\\b", None),
        ("/v1/models/a\r\nb", "/v1/models/a%0d%0ab"),
        ("/v1/models/\x00", "/v1/models/%00"),
        ("/v1/models/../x", "/v1/models%2f..%2fx"),
        ("/v1/models/%2e%2e/x", "/v1/models/%252e%252e/x"),
        ("/v1/models/%zz", None),
        ("/v1/models/%2", None),
        ("/v1/models/%", None),
    ],
)
def test_a_path_that_some_server_takes_for_another_has_no_route(path, sent):
    with pytest.raises(PlatformError) as caught:
        check_path(scope(path, sent))
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/models/org/model", "/v1/models/org%2Fmodel"),
        ("/v1/models/100%", "/v1/models/100%25"),
        ("/v1/models/a..b", None),
        ("/v1/models/.hidden", None),
        ("/v1/models/m:predict", None),
        ("/v1/models/modèle x", "/v1/models/mod%C3%A8le%20x"),
        ("/", None),
    ],
)
def test_a_path_that_names_a_model_is_no_odd_one(path, sent):
    check_path(scope(path, sent))


async def test_an_odd_path_is_told_in_the_protocols_own_shape(serve_http):
    server = await serve_http()
    status, body = await raw(server.url, "GET /v1/models/../x HTTP/1.1", "host: a")
    assert status == 404
    assert body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    "name",
    [
        "x-rayserve-user",
        "x_rayserve_user",
        "x-maas-group",
        "x_forwarded_client_cert",
        "client-cert",
        "serve_multiplexed_model_id",
        "serve-multiplexed-model-id",
        "x-serve-router-target",
    ],
)
def test_a_header_that_only_the_platform_may_set_goes_no_further(name):
    sent = scope(headers=[*HEADERS, (name.encode(), b"forged")])
    assert stripped(sent, None)["headers"] == HEADERS
