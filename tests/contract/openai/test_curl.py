"""curl, as people type it."""

import json

CURL = ("curl", "--silent", "--show-error", "--noproxy", "*", "--fail-with-body")
BODY = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 12}


async def test_a_chat_with_curl(serve_http, run):
    server = await serve_http()
    url = f"{server.url}/v1/chat/completions"
    json_type = ("-H", "content-type: application/json")
    for headers in (json_type, ()):  # without one, curl calls the body a form
        answer = json.loads(await run(*CURL, url, *headers, "-d", json.dumps(BODY)))
        assert answer["object"] == "chat.completion"
        assert len(answer["choices"][0]["message"]["content"]) == 12


async def test_a_stream_with_curl_is_server_sent_events(serve_http, run):
    server = await serve_http()
    body = json.dumps({**BODY, "stream": True})
    written = await run(*CURL, "-N", "-i", f"{server.url}/v1/chat/completions", "-d", body)
    head, _, stream = written.decode().partition("\r\n\r\n")
    assert "content-type: text/event-stream" in head
    lines = stream.split("\n\n")
    assert lines.pop() == ""
    assert lines.pop() == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines)
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines]
    assert len("".join(delta.get("content", "") for delta in deltas)) == 12


async def test_an_error_with_curl_can_be_read(serve_http, run):
    server = await serve_http()
    url = f"{server.url}/v1/models/nope"
    answer = json.loads(await run("sh", "-c", 'curl -sS --noproxy "*" "$0"', url))
    assert answer["error"]["code"] == "model_not_found"
