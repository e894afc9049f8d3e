"""Requests that nobody would think of, made from the documents of the ingress itself.

Schemathesis makes them: what a document allows, and what it forbids. KServe's protocol has no
document of ours; the one here is written from the specification (Open Inference Protocol, REST).
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.contract.auth.conftest import Repository

NAME = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"enum": ["x", "y"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"enum": ["BOOL", "INT8", "UINT64", "FP16", "FP32", "FP64", "BYTES"]},
        "parameters": PARAMETERS,
        "data": {"type": "array"},
    },
}
OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": PARAMETERS},
}
INFER = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": PARAMETERS,
        "inputs": {"type": "array", "items": TENSOR},
        "outputs": {"type": "array", "items": OUTPUT},
    },
}
TEXT = {
    "type": "object",
    "required": ["text_input"],
    "properties": {
        "id": {"type": "string"},
        "text_input": {"type": "string"},
        "parameters": PARAMETERS,
    },
}
INDEX = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
PREDICT = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string"},
        "instances": {"type": "array"},
        "inputs": {},
    },
}
LOAD = {"type": "object", "properties": {"parameters": PARAMETERS}}
KSERVE: dict[str, Any] = {
    "GET /v2/health/live": None,
    "GET /v2/health/ready": None,
    "GET /v2": None,
    "GET /v2/models": None,
    "GET /v2/models/{model}": None,
    "GET /v2/models/{model}/ready": None,
    "GET /v2/models/{model}/versions/{version}": None,
    "POST /v2/models/{model}/infer": INFER,
    "POST /v2/models/{model}/versions/{version}/infer": INFER,
    "POST /v2/models/{model}/generate": TEXT,
    "POST /v2/models/{model}/generate_stream": TEXT,
    "POST /v2/repository/index": INDEX,
    "GET /v1/models/{model}": None,
    "GET /v1/models/{model}/metadata": None,
    "POST /v1/models/{model}:predict": PREDICT,
}
REPOSITORY: dict[str, Any] = {
    "POST /v2/repository/models/{model}/load": LOAD,
    "POST /v2/repository/models/{model}/unload": LOAD,
}
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
"""What a document allows, and what it forbids."""
OPEN = {"/health", "/v2/health/live", "/v2/health/ready"}
EXAMPLES = 6
"""For each route, each time that it is walked."""
TIMEOUT_S = 300


def document_of(routes: dict[str, Any]) -> dict[str, Any]:
    """Return a document of KServe's API."""
    paths: dict[str, Any] = {}
    for key, body in routes.items():
        method, path = key.split(" ")
        named = [part for part in (NAME, VERSION) if f"{{{part['name']}}}" in path]
        operation: dict[str, Any] = {"parameters": named, "responses": {"200": {"description": ""}}}
        if body is not None:
            content = {"application/json": {"schema": body}}
            operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(path, {})[method.lower()] = operation
    info = {"title": "KServe", "version": "2"}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def narrowed(part: Any, models: list[str], *, bare: bool = False) -> Any:
    """Return a document in which a model is one of a few, so that bodies are read on.

    `bare` leaves out what need not be there: most bodies that have some of everything are refused.
    """
    if isinstance(part, list):
        return [narrowed(item, models, bare=bare) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("in") == "path" and part.get("name") == "model":
        return {**part, "schema": {"enum": models}}
    found = {key: narrowed(value, models, bare=bare) for key, value in part.items()}
    fields = found.get("properties")
    if isinstance(fields, dict):
        named = {"model", "model_id"} & fields.keys()
        needed = {*found.get("required", ()), *named}
        fields |= {name: {"enum": models} for name in named}
        found["properties"] = {k: v for k, v in fields.items() if k in needed or not bare}
        found["required"] = sorted(needed)
    return found


def walk(document: dict[str, Any], call: Callable[[Any], None], *modes: GenerationMode) -> int:
    """Call with some requests for each route of a document; return the number of routes."""
    schema = schemathesis.openapi.from_dict(document)
    limited = settings(max_examples=EXAMPLES, phases=[Phase.generate], database=None)
    routes = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])
        limited(given(cases)(call))()
        routes += 1
    return routes


@pytest.mark.parametrize("protocol", ["openai", "caikit", "kserve", "repository"])
async def test_no_generated_request_gets_past_the_token_or_fails(
    serve: Any, tokens: Callable[[], dict[str, str]], protocol: str
) -> None:
    models = [Repository("alpha", "beta")] if protocol == "repository" else []
    server = await serve("kserve" if models else protocol, *models)
    right = {"authorization": f"Bearer {tokens()['right']}"}
    own = {"kserve": KSERVE, "repository": REPOSITORY}.get(protocol)
    if own is None:
        document = (await server.http.get("/openapi.json", headers=right)).json()
    else:
        document = document_of(own)
    base = str(server.http.base_url).rstrip("/")
    seen: Counter[int] = Counter()

    def ask(case: Any) -> None:
        with requests.Session() as session:
            session.trust_env = False
            call = partial(case.call, base_url=base, session=session, timeout=TIMEOUT_S)
            without, answer = call(), call(headers=right)
        if case.path in OPEN:
            assert without.status_code == answer.status_code == 200
            return
        assert without.status_code == 401
        assert answer.status_code not in (401, 403)
        assert answer.status_code < 500
        seen[answer.status_code] += 1

    both = narrowed(document, ["alpha", "beta"])
    routes = await asyncio.to_thread(walk, both, ask, POSITIVE, NEGATIVE)
    alone = narrowed(document, ["alpha"], bare=True)
    await asyncio.to_thread(walk, alone, ask, POSITIVE)
    assert seen[200] >= routes
    assert seen[400] or seen[404]
