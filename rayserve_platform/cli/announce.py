"""What `rayserve run` asks a server that came up, and says of it."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

CHAT = "/v1/chat/completions"
QUESTION = "What is the capital of France?"
BEGINNING = "The capital of France is"


def answers(base: str) -> bool:
    """Say whether the application at `base` answers and is well."""
    try:
        return _get(f"{base}/health")[0] == 200
    except (OSError, urllib.error.URLError):
        return False


def lines(base: str, protocols: Sequence[str]) -> Iterator[str]:
    """Yield which models are ready at `base`, and a request in the first protocol that has one."""
    if set(protocols) == {"tgis"}:
        # It has no list of models over HTTP; that it answers there has been seen.
        yield f"ready: {base}/health, {base}/metrics, and TGIS over gRPC"
        return
    models, broken = _models(base, protocols)
    for name in broken:
        yield f"{name} could not be loaded: see the log of its replica"
    if not models:
        yield f"{base} serves no model yet (docs: {base}/docs)"
        return
    spoken = [name for name in protocols if name != "tgis"]  # it has no requests over HTTP
    path, body = _example(base, spoken, models[0])
    yield f"{', '.join(models)} is ready: {base} (docs: {base}/docs)"
    yield f"\n  curl {base}{path} -H 'Content-Type: application/json' \\"
    yield f"    -d '{json.dumps(body)}'\n"


def _models(base: str, protocols: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the models that are served, and of those that could not be loaded."""
    if "caikit" in protocols:
        listed = _json(f"{base}/info/models").get("models", [])
        served = [model["name"] for model in listed if model["loaded"]]
        return served, [model["name"] for model in listed if not model["loaded"]]
    return [model["id"] for model in _json(f"{base}/v1/models").get("data", [])], []


def _example(base: str, protocols: Sequence[str], model: str) -> tuple[str, dict[str, Any]]:
    """Return path and body of a request that the model can answer."""
    if protocols[0] == "caikit":
        listed = _json(f"{base}/info/models").get("models", [])
        writes = (model, "Text Generation") in (
            (one["name"], one["module_metadata"]["name"]) for one in listed
        )
        if writes:  # goes on from a text: to a question it may have nothing to add
            return "/api/v1/task/text-generation", {"inputs": BEGINNING, "model_id": model}
        return "/api/v1/task/embedding", {"inputs": QUESTION, "model_id": model}
    # A server without documentation is taken for one that chats.
    if CHAT in _json(f"{base}/openapi.json").get("paths", [CHAT]):
        message = {"role": "user", "content": QUESTION}
        return CHAT, {"model": model, "messages": [message]}
    return "/v1/embeddings", {"model": model, "input": QUESTION}


def _get(url: str) -> tuple[int, bytes]:
    # Not through the environment's proxy: this is a server on this machine.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=5) as answer:
        return answer.status, answer.read()


def _json(url: str) -> dict[str, Any]:
    """Return what is at `url`, or nothing where the server has no such page."""
    try:
        found: dict[str, Any] = json.loads(_get(url)[1])
    except (OSError, urllib.error.URLError):
        return {}
    return found
