"""What the ingress says of itself: the OpenAPI document and its page."""

import json

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


async def test_documents_that_are_switched_off_are_404(serve_http):
    server = await serve_http(ingress={"docs": False})
    for path in ("/docs", "/openapi.json"):
        response = await server.client.get(path)
        assert response.status_code == 404
        assert "switched off" in response.json()["error"]["message"]
