"""What `rayserve run` asks a server that came up, and says of it."""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

CHAT = "/v1/chat/completions"
QUESTION = "What is the capital of France?"
BEGINNING = "The capital of France is"
HEALTH = ("/health", "/v2/health/ready")
"""The second is KServe's, which has no other."""
NUMBERS_LIMIT = 16
"""Most numbers in an input that fits on a line to be tried."""


def answers(base: str) -> bool:
    """Say whether the application at `base` answers and is well."""
    for path in HEALTH:
        try:
            return _get(f"{base}{path}")[0] == 200
        except urllib.error.HTTPError as error:
            if error.code != 404:
                return False
        except (OSError, urllib.error.URLError):
            return False
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
    if spoken[0] == "kserve":
        yield f"{', '.join(models)} is ready: {base}/v2"
        yield from _inference(base, models[0])
        return
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
    if "openai" in protocols:
        return [model["id"] for model in _json(f"{base}/v1/models").get("data", [])], []
    return _json(f"{base}/v2/models").get("models", []), []


def _inference(base: str, model: str) -> Iterator[str]:
    """Yield a request with the smallest inputs that the model takes, or for what it takes."""
    url = f"{base}/v2/models/{quote(model)}"
    specs = _json(url).get("inputs", [])
    shapes = [[max(1, size) for size in spec["shape"]] for spec in specs]
    if not specs or max(map(math.prod, shapes)) > NUMBERS_LIMIT:
        yield f"\n  curl {url}\n"
        return
    values: dict[str, Any] = {"BYTES": QUESTION, "BOOL": True}
    inputs = [
        {**spec, "shape": shape, "data": [values.get(spec["datatype"], 1)] * math.prod(shape)}
        for spec, shape in zip(specs, shapes, strict=True)
    ]
    yield f"\n  curl {url}/infer \\"
    yield f"    -d '{json.dumps({'inputs': inputs})}'\n"


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
        return CHAT, {"model": model, "messages": [message], "temperature": 0}
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
