"""Sends recorded exchanges to a server: HTTP requests as they were, calls in the original's own
messages."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import grpc
import httpx
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from tests.contract.caikit.recordings import DATA, content, differences, folded, shape
from tests.transports import Served

HEADERS = ("content-type", "allow", "cache-control", "x-accel-buffering")


async def send(
    server: Served, case: dict[str, Any], forms: Mapping[str, Mapping[str, str]] | None = None
) -> httpx.Response:
    """Send a recorded request; `forms` are the fields of those that are forms."""
    asked = case["request"]
    headers = dict(asked.get("headers", {}))
    sent: dict[str, Any] = {}
    if "json" in asked:
        sent["content"] = json.dumps(asked["json"])
    elif "raw" in asked:
        sent["content"] = asked["raw"].encode("latin-1")
    elif "multipart" in asked:
        fields = (forms or {})[case["id"]]
        sent["files"] = {name: (None, value) for name, value in fields.items()}
    if asked.get("query"):
        sent["params"] = asked["query"]
    return await server.http.request(asked["method"], asked["path"], headers=headers, **sent)


def check(case: dict[str, Any], answer: httpx.Response) -> None:
    """Hold an answer against the recorded one."""
    expected = case["response"]
    assert answer.status_code == expected["status"], answer.text
    recorded = {key.lower(): value for key, value in expected["headers"]}
    for name in HEADERS:
        assert answer.headers.get(name) == recorded.get(name), name
    body = expected["body"]
    if case["request"]["method"] == "HEAD" or "<html" in body:
        return
    if answer.headers.get("content-type", "").startswith("text/plain"):
        assert answer.text == body
        return
    ours, theirs = content(answer.text), content(body)
    if case.get("sampled"):
        if isinstance(ours, dict):
            assert ours.keys() == theirs.keys()
        else:
            (kind, first), (expected_kind, expected_first) = ours[0], theirs[0]
            assert (kind, first.keys()) == (expected_kind, expected_first.keys())
        return
    if isinstance(ours, list):
        kinds = [kind for kind, _ in theirs]
        joined = folded([one for _, one in theirs], [one for _, one in ours])
        if len(joined) < len(theirs):
            body = "".join(f"{kinds[0]}\r\ndata: {json.dumps(one)}\r\n\r\n" for one in joined)
            theirs = content(body)
    found = list(differences(theirs, ours))
    assert found == [], found
    assert shape(answer.text) == shape(body), answer.text


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """The original's messages, as its reflection serves them."""
    found = descriptor_pool.DescriptorPool()
    recorded = descriptor_pb2.FileDescriptorSet.FromString((DATA / "caikit.protoset").read_bytes())
    for file in recorded.file:
        found.Add(file)
    return found


async def call(server: Served, case: dict[str, Any]) -> tuple[str, str, list[Any]]:
    """Make a recorded call with the original's own messages."""
    service, _, name = case["method"].partition("/")
    method = pool().FindServiceByName(service).methods_by_name[name]
    request, response = map(
        message_factory.GetMessageClass, (method.input_type, method.output_type)
    )
    raw = case.get("request_raw_hex")
    sent = bytes.fromhex(raw) if raw else _serialized(request, case["request"])
    options: Any = {"metadata": [tuple(pair) for pair in case["metadata"]], "timeout": 60}
    path = f"/{case['method']}"
    as_is: Any = {"request_serializer": bytes, "response_deserializer": response.FromString}
    messages: list[Any] = []
    try:
        if method.server_streaming:
            stream: Any = server.channel.unary_stream(path, **as_is)(sent, **options)
            async for message in stream:  # those before an error count too
                messages.append(message)  # noqa: PERF401  # a comprehension would lose them
        else:
            messages.append(await server.channel.unary_unary(path, **as_is)(sent, **options))
    except grpc.aio.AioRpcError as error:
        status = error.code().name, error.details() or ""
    else:
        status = "OK", ""
    as_json = [json_format.MessageToDict(m, preserving_proto_field_name=True) for m in messages]
    return *status, as_json


async def check_call(server: Served, case: dict[str, Any]) -> None:
    """Hold a call's status and messages against the recorded ones."""
    code, details, messages = await call(server, case)
    expected = case["response"]
    if case.get("sampled"):
        expected = {**expected, "messages_json": messages}
    assert (code, details) == (expected["code"], expected["details"] or ""), (code, details)
    theirs = expected["messages_json"]
    if len(theirs) > 1:
        theirs = folded(theirs, messages)
    found = list(differences(theirs, messages))
    assert found == [], found


def _serialized(request: Any, content: dict[str, Any]) -> bytes:
    made: bytes = json_format.ParseDict(content, request()).SerializeToString()
    return made
