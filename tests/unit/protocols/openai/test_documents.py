"""What the ingress says of itself: the OpenAPI document, its page, the metrics."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rayserve_platform.protocols.openai.routes import ROUTES

NATIVE_DOCUMENT = {
    "paths": {
        "/v1/chat/completions": {
            "post": {"summary": "the engine's own", "x": {"$ref": "#/components/schemas/Own"}},
            "get": {"summary": "hidden"},
        },
        "/v1/messages": {"post": {"summary": "messages of the engine"}},
        "/v1/models": {"get": {"summary": "the engine's own list"}},
        "/sleep": {"post": {"summary": "hidden"}},
        "/collective_rpc": {"post": {"summary": "hidden"}},
    },
    "components": {"schemas": {"Own": {"type": "object"}}},
}


def operations(document) -> set[str]:
    return {f"{m.upper()} {path}" for path, item in document["paths"].items() for m in item}


def references(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def undefined(document) -> set[str]:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    return set(references(document)) - known


async def test_the_document_of_a_translated_model_has_exactly_what_it_answers(serve_http):
    server = await serve_http()
    document = (await server.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    assert operations(document) == {route.key for route in ROUTES if route.verb}
    assert undefined(document) == set()
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    reference = body["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
    assert {"messages", "temperature", "stream"} <= set(schema["properties"])


async def test_the_document_of_a_native_model_is_its_own_cut_to_the_allow_list(
    serve_http, make_native
):
    native = make_native(
        "POST /v1/chat/completions", answer=(json.dumps(NATIVE_DOCUMENT).encode(),)
    )
    server = await serve_http(native)
    document = (await server.client.get("/openapi.json")).json()
    local = {route.key for route in ROUTES if route.local}
    assert operations(document) == local | {"POST /v1/chat/completions", "POST /v1/messages"}
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert chat["summary"] == "the engine's own"
    assert document["paths"]["/v1/models"]["get"]["summary"] != "the engine's own list"
    assert "hidden" not in json.dumps(document["paths"])
    assert undefined(document) == set()
    assert [call.scope["path"] for call in native.calls] == ["/openapi.json"]


async def test_a_native_document_that_cannot_be_had_is_unavailable(serve_http, make_native):
    native = make_native("POST /v1/messages", status=500, answer=(b"traceback",))
    server = await serve_http(native)
    response = await server.client.get("/openapi.json")
    assert response.status_code == 503
    assert "traceback" not in response.text


async def test_the_page_shows_the_document_next_to_it(serve_http):
    server = await serve_http()
    page = await server.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text
    assert "/openapi.json" not in page.text


@pytest.mark.parametrize(
    ("off", "paths"), [("docs", ["/docs", "/openapi.json"]), ("metrics", ["/metrics"])]
)
async def test_what_is_switched_off_is_404(serve_http, off, paths):
    server = await serve_http(**{off: False})
    for path in paths:
        response = await server.client.get(path)
        assert response.status_code == 404
        assert "switched off" in response.json()["error"]["message"]


async def test_metrics_count_requests_by_route_model_and_code(serve_http, make_fake):
    server = await serve_http(make_fake(id="measured"))
    for name in ("measured", "measured", "made-up-name"):
        body = {"model": name, "prompt": "a"}
        await server.client.post("/v1/completions", json=body)
    response = await server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.labels["route"], sample.labels["model"], sample.labels["code"]): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name == "rayserve_requests_total"
    }
    assert found["/v1/completions", "measured", "200"] == 2
    assert found["/v1/completions", "", "404"] >= 1
    assert "made-up-name" not in response.text


async def test_metrics_of_an_engine_elsewhere_are_added_to_the_edges_own(serve_http, make_native):
    native = make_native("GET /metrics", answer=(b"vllm:num_requests_running 3\n",))
    server = await serve_http(native)
    text = (await server.client.get("/metrics")).text
    assert "vllm:num_requests_running 3" in text.splitlines()
    assert "rayserve_requests_total" in text
    assert "process_cpu_seconds_total" not in text


async def test_metrics_of_an_engine_in_this_process_are_in_its_registry(serve_http, make_native):
    native = make_native("GET /metrics")
    server = await serve_http(native, engine_elsewhere=False)
    text = (await server.client.get("/metrics")).text
    assert "process_cpu_seconds_total" in text
    assert native.calls == []
