"""The OpenAPI document and its page."""

from functools import cache
from typing import Any

from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import BaseModel

import rayserve_platform
from rayserve_platform.protocols.caikit.schema import BODIES
from rayserve_platform.protocols.caikit.tasks import TASKS, CaikitTask

TITLE = "rayserve_platform: Caikit API"
OK = {"200": {"description": "OK"}}


@cache
def page() -> bytes:
    """Return the page that shows the document (Swagger UI, as FastAPI makes it)."""
    return bytes(get_swagger_ui_html(openapi_url="openapi.json", title=TITLE).body)


@cache
def openapi() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, Any] = {
        f"/api/v1/task/{task.name}": {"post": _operation(task)} for task in TASKS
    }
    names = {"type": "array", "items": {"type": "string"}}
    queried = [{"name": "model_ids", "in": "query", "required": False, "schema": names}]
    paths |= {
        "/info/models": {
            "get": {"summary": "Models", "parameters": queried, "responses": OK},
        },
        "/info/version": {"get": {"summary": "Version", "responses": OK}},
        "/info/runtime": {"get": {"summary": "Version", "responses": OK}},
        "/health": {"get": {"summary": "Health", "responses": OK}},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": rayserve_platform.__version__},
        "paths": paths,
    }


def _operation(task: CaikitTask) -> dict[str, Any]:
    schema = _schema(BODIES[task.name])
    kinds = ("application/json", "multipart/form-data")
    return {
        "summary": task.name.replace("-", " ").capitalize(),
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}},
        "responses": OK,
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema with those it refers to in their places.

    caikit-nlp-client reads the parameters of text generation from an `allOf` of one such schema.
    """
    schema = model.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})

    def inlined(part: Any) -> Any:
        if isinstance(part, list):
            return [inlined(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return {"allOf": [inlined(definitions[part["$ref"].rpartition("/")[2]])]}
        # A default of null is how a field that may be left out is written down, not a value.
        return {key: inlined(value) for key, value in part.items() if key != "default"}

    found: dict[str, Any] = inlined(schema)
    return found
