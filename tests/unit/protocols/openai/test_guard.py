"""What no body may ask for, also where an engine's own server would read it."""

import json

import pytest

CHAT = "/v1/chat/completions"
ROUTES = (
    f"POST {CHAT}",
    "POST /v1/completions",
    "POST /v1/responses",
    "POST /v1/messages",
    "POST /tokenize",
    "POST /v1/embeddings",
    "POST /v1/score",
    "POST /v1/audio/transcriptions",
)
BOMB = "(a{1,9999}){1,9999}"
LARGE = {"type": "object", "properties": {"a": {"type": "string", "pattern": BOMB}}}
ADDED = {"type": "tool_definition", "definition": {"name": "f", "input_schema": LARGE}}
HI = [{"role": "user", "content": "hi"}]


def part(**content):
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, content]}]}


async def refused(server, path, body, param, *words):
    response = await server.client.post(path, json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    for word in words:
        assert word in error["message"]
    assert server.runtime.calls == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": HI, "chat_template": "{{ 'a' * 10**9 }}"}, "chat_template"),
        (CHAT, {"messages": HI, "chat_template_kwargs": {"chat_template": "x"}}, "chat_template"),
        ("/tokenize", {"messages": HI, "chat_template": "x"}, "chat_template"),
        (CHAT, {"messages": HI, "kv_transfer_params": {"remote_host": "a"}}, "kv_transfer_params"),
        (CHAT, {"messages": HI, "n": 513}, "n"),
        (CHAT, {"messages": HI, "n": 1e300}, "n"),
        ("/v1/completions", {"prompt": ["a"] * 257, "n": 2}, "n"),
        ("/v1/completions", {"prompt": ["a"] * 513}, "n"),
        ("/v1/completions", {"prompt": [[1]] * 513}, "n"),
        ("/v1/completions", {"prompt": "a", "best_of": 513}, "best_of"),
    ],
)
async def test_it_is_refused_before_the_engine_sees_it(serve_http, make_native, path, body, param):
    server = await serve_http(make_native(*ROUTES))
    await refused(server, path, body, param)


@pytest.mark.parametrize(
    ("field", "guide"),
    [
        ("structured_outputs", {"regex": "(a{1000}){1000}"}),
        ("structured_outputs", {"grammar": "a" * 70_000}),
        ("structured_outputs", {"choice": ["a" * 70_000]}),
        ("structured_outputs", {"json": {"pattern": "(a{1000}){1000}"}}),
        ("structured_outputs", {"json": '{"pattern": "(a{1000}){1000}"}'}),
        ("guided_regex", "(a{1000}){1000}"),
        ("guided_json", {"pattern": "(a{1000}){1000}"}),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"schema": {"pattern": "(a{1000}){1000}"}}},
        ),
        ("text", {"format": {"schema": {"pattern": "(a{1000}){1000}"}}}),
        ("structured_outputs", {"whitespace_pattern": BOMB, "json": {}}),
        ("guided_whitespace_pattern", BOMB),
        ("structured_outputs", {"structural_tag": json.dumps({"structures": [{"schema": LARGE}]})}),
        ("structured_outputs", {"structural_tag": {"structures": [{"schema": LARGE}]}}),
        ("structured_outputs", {"structural_tag": '{"format": ' * 900 + "1" + "}" * 900}),
        ("response_format", {"type": "structural_tag", "structures": [{"schema": LARGE}]}),
        ("output_config", {"format": {"type": "json_schema", "schema": LARGE}}),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": LARGE}}]),
        ("tools", [{"type": "function", "name": "f", "parameters": LARGE}]),
        ("tools", [{"name": "f", "input_schema": LARGE}]),
        ("tools", [{"type": "namespace", "tools": [{"name": "f", "parameters": LARGE}]}]),
        ("messages", [{"role": "system", "content": [{"type": "tool_addition", "tool": ADDED}]}]),
    ],
)
async def test_a_guide_that_is_large_to_compile_is_refused(serve_http, make_native, field, guide):
    server = await serve_http(make_native(*ROUTES))
    response = await server.client.post(CHAT, json={"messages": HI, field: guide})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(field)
    assert server.runtime.calls == []


def tools(count: int, **more: object) -> list[object]:
    """Tools with ordinary schemas; the lengths of their texts are all different."""
    return [
        {
            "type": "function",
            "function": {
                "name": f"tool_{i}",
                "description": "Does what its name says. " * 20,
                "parameters": {
                    "type": "object",
                    "properties": {
                        "text": {"type": "string", "maxLength": 200 + i, "description": "a" * 200},
                        "kind": {"type": "string", "enum": [f"kind {k}" for k in range(40)]},
                        "price": {"type": "number", "multipleOf": 0.01, "minimum": 0},
                        "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{2,30}$"},
                        **{f"option_{k}": {"type": "boolean"} for k in range(10)},
                    },
                    "required": ["text"],
                },
                **more,
            },
        }
        for i in range(count)
    ]


@pytest.mark.parametrize(
    "more",
    [
        {"tools": tools(20)},
        {"tools": tools(20), "tool_choice": "auto"},
        {"tools": tools(20), "tool_choice": {"type": "function", "function": {"name": "tool_1"}}},
        {"tools": tools(16), "tool_choice": "required"},
        {"tools": [{"type": "web_search", "strict": True}, None, 1], "tool_choice": []},
        {"tools": tools(16, strict=True), "output_config": {"effort": "low"}},
    ],
)
async def test_the_tools_that_people_use_pass(serve_http, make_native, more):
    server = await serve_http(make_native(*ROUTES))
    response = await server.client.post(CHAT, json={"messages": HI, **more})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "more",
    [
        {"tools": tools(17), "tool_choice": "required"},
        {"tools": tools(17), "tool_choice": {"type": "any"}},
        {"tools": tools(17), "parallel_tool_calls": False},
        {"tools": tools(17, strict=True)},
    ],
)
async def test_tools_that_are_compiled_into_one_count_together(serve_http, make_native, more):
    server = await serve_http(make_native(*ROUTES))
    body = {"messages": HI, **more}
    await refused(server, CHAT, body, "tools", "more than 16 different lengths of strings")


MEDIA = [
    (CHAT, lambda url: part(type="image_url", image_url={"url": url}), "image_url"),
    (CHAT, lambda url: part(type="image_url", image_url=url), "image_url"),
    (CHAT, lambda url: part(image_url=url), "image_url"),
    (CHAT, lambda url: part(type="video_url", video_url={"url": url}), "video_url"),
    (CHAT, lambda url: part(type="audio_url", audio_url={"url": url}), "audio_url"),
    (
        "/v1/responses",
        lambda url: {
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
        },
        "image_url",
    ),
    (
        "/v1/responses",
        lambda url: {
            "input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]
        },
        "file_url",
    ),
    (
        "/v1/messages",
        lambda url: part(type="image", source={"type": "url", "url": url}) | {"max_tokens": 1},
        "source",
    ),
    (
        "/v1/messages",
        lambda url: part(
            type="tool_result",
            content=[{"type": "image", "source": {"type": "url", "url": url}}],
        ),
        "source",
    ),
    ("/v1/embeddings", lambda url: part(type="image_url", image_url={"url": url}), "image_url"),
    (
        "/v1/score",
        lambda url: {
            "data_1": "a",
            "data_2": {"content": [{"type": "image_url", "image_url": {"url": url}}]},
        },
        "image_url",
    ),
]
OUTSIDE = (
    "http://169.254.169.254/latest/meta-data",
    "https://media.example.org.evil.example/a.png",
    "https://media.example.org@evil.example/a.png",
    "https://evil.example\\@media.example.org/a.png",
    "https://evil.example#@media.example.org/a.png",
    "https://[::1]/a.png",
    "https://[broken/a.png",
    "https://media.example.org:0/a.png",
    "https://media.example.org:99999/a.png",
    "file:///etc/passwd",
    "ftp://media.example.org/a.png",
    "//media.example.org/a.png",
    "media.example.org/a.png",
    "https://med\u0456a.example.org/a.png",
    " https://media.example.org/a.png",
)


@pytest.mark.parametrize(("path", "make", "param"), MEDIA)
async def test_nothing_is_fetched_for_a_caller_by_default(
    serve_http, make_native, path, make, param
):
    server = await serve_http(make_native(*ROUTES))
    url = "https://media.example.org/a.png"
    await refused(server, path, make(url), param, "must be a data: URL")
    inline = await server.client.post(path, json=make("data:image/png;base64,AAAA"))
    assert inline.status_code == 200


@pytest.mark.parametrize("url", OUTSIDE)
async def test_media_come_from_allowed_hosts_alone(serve_http, make_native, url):
    ingress = {"openai": {"media_hosts": ["media.example.org"]}}
    server = await serve_http(make_native(*ROUTES), ingress=ingress)
    body = part(type="image_url", image_url={"url": url})
    response = await server.client.post(CHAT, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "image_url"
    assert "http(s) on a host that this server fetches from" in response.text
    assert "media.example.org" not in response.text  # not for those who may call nothing
    assert server.runtime.calls == []


HIDDEN = [{"type": "image_url", "image_url": {"url": "https://media.example.org/a.png"}}]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "type": "tool_use", "content": HIDDEN}]},
        {"messages": [{"role": "user", "type": "tool_use", "input": HIDDEN}]},
        {"messages": [{"role": "user", "arguments": HIDDEN}]},
        {"input": [{"type": "message", "role": "user", "content": HIDDEN, "tools": []}]},
        part(type="tool_use", input={}, content=HIDDEN),
        part(type="text", text="a", arguments=HIDDEN),
        part(type="text", text="a", tools=HIDDEN),
    ],
)
async def test_no_key_beside_it_hides_what_is_to_be_fetched(serve_http, make_native, body):
    server = await serve_http(make_native(*ROUTES))
    await refused(server, CHAT, body, "image_url", "must be a data: URL")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": HI, "tools": [{"function": {"parameters": {"image_url": "https://a"}}}]},
        {"messages": [{"role": "user", "content": "see https://example.org/image_url"}]},
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"arguments": {"image_url": "x"}}}],
                }
            ]
        },
        part(type="tool_use", input={"image_url": "https://example.org/a.png"}),
        {"input": [{"type": "function_call", "arguments": {"image_url": "https://a"}}]},
        {"messages": [{"role": "assistant", "function_call": {"arguments": {"image_url": "x"}}}]},
        {"messages": [{"role": "system", "content": "a", "tools": [{"image_url": "https://a"}]}]},
        {"input": [{"type": "mcp_list_tools", "tools": [{"image_url": "https://a"}]}]},
        {"messages": HI, "metadata": {"image_url": "https://example.org/a.png"}},
        {"messages": HI, "n": 512},
        {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
    ],
)
async def test_what_only_looks_alike_passes(serve_http, make_native, body):
    server = await serve_http(make_native(*ROUTES))
    assert (await server.client.post(CHAT, json=body)).status_code == 200
    assert len(server.runtime.calls) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "native", "model": "other", "messages": []}',
        rb'{"model": "other", "\u006dodel": "native", "messages": []}',
    ],
)
async def test_two_models_in_a_body_are_refused(serve_http, make_native, make_fake, body):
    native = make_native(*ROUTES)
    server = await serve_http(native, make_fake(id="other"))
    response = await server.client.post(CHAT, content=body)
    assert response.status_code == 400
    assert "several 'model'" in response.json()["error"]["message"]
    assert native.calls == []


async def test_an_upload_is_for_the_model_that_its_form_names(serve_http, make_native, make_fake):
    native = make_native(*ROUTES)
    server = await serve_http(native, make_fake(id="other"))
    path, file = "/v1/audio/transcriptions", {"file": b"\x00\xff"}
    named = await server.client.post(path, files=file, data={"model": "native"})
    assert named.status_code == 200
    assert len(native.calls) == 1
    unable = await server.client.post(path, files=file, data={"model": "other"})
    assert unable.status_code == 400
    unknown = await server.client.post(path, files=file, data={"model": "nobody"})
    assert unknown.status_code == 404
    both = await server.client.post(f"{path}?model=native", files=file, data={"model": "other"})
    assert both.status_code == 400
    assert "several models" in both.json()["error"]["message"]
    twice = await server.client.post(path, files=file, data={"model": ["native", "other"]})
    assert twice.status_code == 400
    broken = await server.client.post(
        path, content=b"x", headers={"content-type": "multipart/form-data; boundary=a"}
    )
    assert broken.status_code in (400, 404)
    assert len(native.calls) == 1
