"""Every route of every protocol, with every kind of token.

The routes are taken from what the ingress itself publishes or is made of: one without a sample here
fails, so that a new route can't be forgotten.
"""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.protocols.kserve.http import KServeHttp
from rayserve_platform.protocols.kserve.paths import parse
from rayserve_platform.protocols.openai.routes import ROUTES
from tests.contract.auth.conftest import Repository

MODEL = "@model"
"""Stands for the model's name in paths and bodies."""

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
TEXT = {"model": MODEL, "prompt": "hi", "max_tokens": 2}
EMBED = {"model": MODEL, "input": "hi"}
SCORE = {"model": MODEL, "text_1": "a", "text_2": "b"}
RERANK = {"model": MODEL, "query": "a", "documents": ["b"]}
NAMED = {"model": MODEL}
TENSOR = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}

OPENAI: dict[str, Any] = {
    "GET /health": None,
    "GET /version": None,
    "GET /docs": None,
    "GET /openapi.json": None,
    "GET /v1/models": None,
    "GET /v1/models/{model}": None,
    "POST /v1/chat/completions": CHAT,
    "POST /v1/completions": TEXT,
    "POST /v1/embeddings": EMBED,
    "POST /tokenize": {"model": MODEL, "prompt": "hi"},
    "POST /detokenize": {"model": MODEL, "tokens": [1]},
    "POST /v1/responses": {"model": MODEL, "input": "hi"},
    "GET /v1/responses/{response_id}": "?model=" + MODEL,
    "POST /v1/responses/{response_id}/cancel": NAMED,
    "POST /v1/messages": {**CHAT},
    "POST /v1/messages/count_tokens": CHAT,
    "POST /v1/score": SCORE,
    "POST /score": SCORE,
    "POST /v1/rerank": RERANK,
    "POST /v2/rerank": RERANK,
    "POST /rerank": RERANK,
    "POST /pooling": EMBED,
    "POST /classify": EMBED,
    "POST /v1/audio/transcriptions": NAMED,
    "POST /v1/audio/translations": NAMED,
}
CAIKIT: dict[str, Any] = {
    "GET /health": None,
    "GET /docs": None,
    "GET /openapi.json": None,
    "GET /info/version": None,
    "GET /info/runtime": None,
    "GET /info/models": "?model_ids=" + MODEL,
    "POST /api/v1/task/embedding": {"model_id": MODEL, "inputs": "hi"},
    "POST /api/v1/task/embedding-tasks": {"model_id": MODEL, "inputs": ["hi"]},
    "POST /api/v1/task/sentence-similarity": {
        "model_id": MODEL,
        "inputs": {"source_sentence": "a", "sentences": ["b"]},
    },
    "POST /api/v1/task/sentence-similarity-tasks": {
        "model_id": MODEL,
        "inputs": {"source_sentences": ["a"], "sentences": ["b"]},
    },
    "POST /api/v1/task/rerank": {
        "model_id": MODEL,
        "inputs": {"query": "a", "documents": [{"text": "b"}]},
    },
    "POST /api/v1/task/rerank-tasks": {
        "model_id": MODEL,
        "inputs": {"queries": ["a"], "documents": [{"text": "b"}]},
    },
    "POST /api/v1/task/tokenization": {"model_id": MODEL, "inputs": "hi"},
    "POST /api/v1/task/text-generation": {"model_id": MODEL, "inputs": "hi"},
    "POST /api/v1/task/server-streaming-text-generation": {"model_id": MODEL, "inputs": "hi"},
}
KSERVE: dict[str, Any] = {
    "GET /v2/health/live": None,
    "GET /v2/health/ready": None,
    "GET /v2": None,
    "GET /v2/models": None,
    "GET /v2/models/{model}": None,
    "GET /v2/models/{model}/ready": None,
    "POST /v2/models/{model}/infer": {"inputs": [TENSOR]},
    "POST /v2/models/{model}/generate": {"text_input": "hi"},
    "POST /v2/models/{model}/generate_stream": {"text_input": "hi"},
    "POST /v2/repository/index": {},
    "POST /v2/repository/models/{model}/load": {},
    "POST /v2/repository/models/{model}/unload": {},
    "GET /v1/config": None,
    "GET /v1/models/{model}": None,
    "GET /v1/models/{model}/metadata": None,
    "POST /v1/models/{model}:predict": {"instances": [1]},
}
COMMON: dict[str, Any] = {"GET /metrics": None, "GET /unknown": None, "POST /v1/unknown": {}}
SAMPLES = {"openai": OPENAI, "caikit": CAIKIT, "kserve": KSERVE, "tgis": {"GET /health": None}}
PROBES = {"GET /health", "GET /v2/health/live", "GET /v2/health/ready"}
CASES = [(protocol, key) for protocol, samples in SAMPLES.items() for key in {**samples, **COMMON}]


async def ask(
    http: httpx.AsyncClient, protocol: str, key: str, model: str, token: str | None
) -> httpx.Response:
    method, template = key.split(" ")
    sample = {**SAMPLES[protocol], **COMMON}[key]
    path = template.replace("{model}", model).replace("{response_id}", "resp_1")
    if isinstance(sample, str):
        path, sample = path + sample.replace(MODEL, model), None
    body = None if sample is None else json.dumps(sample).replace(MODEL, model)
    headers = {} if body is None else {"content-type": "application/json"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return await http.request(method, path, content=body, headers=headers)


async def test_every_route_of_the_published_document_has_a_sample(
    serve: Any, tokens: Callable[[], dict[str, str]]
) -> None:
    for protocol in ("openai", "caikit"):
        server = await serve(protocol)
        right = tokens()["right"]
        answer = await ask(server.http, protocol, "GET /openapi.json", "alpha", right)
        published = {
            f"{method.upper()} {path}"
            for path, operations in answer.json()["paths"].items()
            for method in operations
        }
        assert len(published) > 5
        assert published <= set(SAMPLES[protocol])
    assert {route.key for route in ROUTES} == set(OPENAI)


def test_every_verb_of_kserve_has_a_sample() -> None:
    face = KServeHttp(Catalog([]), repository_api=True)
    parsed = [parse(key.split(" ")[1].replace("{model}", "m")) for key in KSERVE]
    assert {target.verb for target in parsed if target} == set(face._handlers)


@pytest.mark.parametrize(("protocol", "key"), CASES, ids=str)
async def test_a_route_is_answered_to_whoever_may(
    serve: Any, tokens: Callable[[], dict[str, str]], protocol: str, key: str
) -> None:
    server = await serve(protocol, *runtimes_for(key))
    found = tokens()
    if key in PROBES:
        for token in (None, "not-a-token", found["right"]):
            assert (await ask(server.http, protocol, key, "alpha", token)).status_code == 200
        return
    for kind in (None, "bad", "forged", "expired", "wrong audience"):
        answer = await ask(server.http, protocol, key, "alpha", kind and found[kind])
        assert answer.status_code == 401, kind
        assert answer.headers["www-authenticate"] == 'Bearer realm="oidc"'
        assert_shape(protocol, answer, bool(key.endswith("/metrics")))
    answer = await ask(server.http, protocol, key, "alpha", found["nothing"])
    assert answer.status_code in (403, 404, 405)
    assert (answer.status_code == 403) == (key not in COMMON or key == "GET /metrics")
    right = await ask(server.http, protocol, key, "alpha", found["right"])
    assert right.status_code not in (401, 403)
    assert right.status_code < 500
    if MODEL in str(SAMPLES[protocol].get(key)) or "{model}" in key:
        await assert_alike(server, protocol, key, found["other model"])
    if not runtimes_for(key):
        assert not server.runtimes["beta"].seen


def runtimes_for(key: str) -> list[Any]:
    """A repository has all its models in one runtime."""
    return [Repository("alpha", "beta")] if "/repository/models/" in key else []


async def assert_alike(server: Any, protocol: str, key: str, token: str) -> None:
    """A model that is forbidden is answered as one that does not exist."""
    before = len(server.runtimes["alpha"].seen)
    forbidden = await ask(server.http, protocol, key, "alpha", token)
    unknown = await ask(server.http, protocol, key, "gamma", token)
    assert forbidden.status_code == unknown.status_code
    assert same(forbidden.text, "alpha") == same(unknown.text, "gamma")
    assert forbidden.status_code == 404 or b"not loaded" in forbidden.content
    assert len(server.runtimes["alpha"].seen) == before


def same(text: str, model: str) -> str:
    """Leave out what differs between any two answers."""
    try:
        content = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if '"id"' not in line]
        return "\n".join(lines).replace(model, MODEL)
    if isinstance(content, dict):
        content.pop("id", None)
        if isinstance(content.get("error"), dict):
            content["error"].pop("request_id", None)
    return json.dumps(content).replace(model, MODEL)


def assert_shape(protocol: str, answer: httpx.Response, is_metrics: bool) -> None:
    """A refusal has the protocol's own error shape, and no internals."""
    content = answer.json()
    if is_metrics or protocol == "caikit":
        assert content["detail" if is_metrics else "details"]
    elif protocol == "openai":
        assert content["error"]["message"]
    else:
        assert isinstance(content["error"], str)
    for internal in ("oidc", "Traceback", "127.0.0.1", "joserfc", "/keys"):
        assert internal not in answer.text
