"""The allow-list on a real socket, in front of an engine whose own server has every route."""

import asyncio

import httpx
import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.settings.app import Ingress

HIDDEN = (
    "/sleep",
    "/wake_up",
    "/pause",
    "/resume",
    "/collective_rpc",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/start_profile",
    "/invocations",
    "/ping",
    "/server_info",
    "/update_weights",
    "/scale_elastic_ep",
    "/inference/v1/generate",
    "/abort_requests",
    "/load",
    "/v1/systemone",
)


async def raw(url: str, request_line: str) -> bytes:
    """Send a request line that no HTTP client would; return the answer's status line."""
    port = httpx.URL(url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request_line}\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.split(b"\r\n", 1)[0]


async def test_no_hidden_route_of_a_native_server_can_be_reached(serve_http, make_native):
    native = make_native(*(f"{m} {path}" for path in HIDDEN for m in ("GET", "POST")))
    server = await serve_http(native)
    for path in HIDDEN:
        for variant in (path, f"{path}/", f"/{path}", path.upper(), f"/v1/..{path}", f"{path}?a=1"):
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
                body = {"json": {"model": "native"}} if method == "POST" else {}
                response = await server.client.request(method, server.url + variant, **body)
                assert response.status_code == 404, (method, variant)
                assert response.json()["error"]["type"] == "not_found_error"
    assert native.calls == []


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/../../sleep",
        "/v1/models/..%2f..%2fsleep",
        "/v1/models/%2e%2e/%2e%2e/sleep",
        "/v1/models/m%00",
        "/sleep%23",
        "/%73leep",
        "/v1%2f..%2fsleep",
        "//sleep",
        "/./sleep",
        "/v1/chat/completions/..%2f..%2f..%2fsleep",
    ],
)
async def test_no_spelling_of_a_path_leads_to_a_hidden_route(serve_http, make_native, target):
    native = make_native("POST /sleep", "GET /sleep")
    server = await serve_http(native)
    for method in ("GET", "POST"):
        status = await raw(server.url, f"{method} {target} HTTP/1.1")
        assert status.split()[1] in (b"404", b"405"), (method, status)
    assert native.calls == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("HEAD", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/fake", "GET"),
        ("OPTIONS", "/health", "GET"),
        ("GET", "/v1/responses/r/cancel", "POST"),
        ("PATCH", "/v1/responses/r", "GET"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_are_right(serve_http, method, path, allow):
    server = await serve_http()
    response = await server.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    if method != "HEAD":
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert f"{method} is not allowed on {path}; use {allow}." in error["message"]


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/fake", "/version", "/docs"])
async def test_head_answers_the_head_of_get(serve_http, path):
    server = await serve_http()
    got = await server.client.get(path)
    head = await server.client.head(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("name", ["org/model", "a/b/c", "with space", "modèle", "100%"])
async def test_model_names_with_slashes_and_odd_characters_work(serve_http, make_fake, name):
    server = await serve_http(make_fake(id=name), make_fake(id="other"))
    for quoted in (name.replace("%", "%25"), "".join(f"%{b:02x}" for b in name.encode())):
        found = await server.client.get(f"/v1/models/{quoted}")
        assert found.status_code == 200
        assert found.json()["id"] == name
    body = {"model": name, "prompt": "hi"}
    assert (await server.client.post("/v1/completions", json=body)).json()["model"] == name


@pytest.mark.parametrize("path", ["/v1/models/nope", "/v1/models/fake/", "/v1/models/FAKE"])
async def test_an_unknown_model_is_404_naming_the_served_ones(serve_http, path):
    server = await serve_http()
    response = await server.client.get(path)
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "Served models: fake." in error["message"]


async def test_an_unknown_url_says_which_one(serve_http, access_log):
    server = await serve_http()
    response = await server.client.get("/v2/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "Unknown request URL: GET /v2/nothing."
    assert [line["route"] for line in access_log()] == ["none"]


async def test_paths_are_taken_below_the_root_path(make_fake):
    edge = HttpEdge([OpenAIHttp(Catalog([make_fake()]))], Ingress())
    transport = httpx.ASGITransport(edge, root_path="/llm")
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/llm/v1/models")).status_code == 200
        assert (await client.get("/llm/sleep")).status_code == 404
