"""The OpenAPI document and its page: exactly the routes of the allow-list."""

from functools import cache
from typing import Any, Literal

from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import rayserve_platform
from rayserve_platform.protocols.openai.routes import ROUTES, Route
from rayserve_platform.protocols.openai.schema import BODIES

TITLE = "rayserve_platform: OpenAI-compatible API"


@cache
def page() -> bytes:
    """Return the page that shows the document (Swagger UI, as FastAPI makes it)."""
    body = get_swagger_ui_html(openapi_url="openapi.json", title=TITLE).body
    return bytes(body)


def openapi(native: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the document.

    Args:
        native: OpenAPI documents of the runtimes' own servers; where there are any, their
            description of a route replaces ours, and routes that none of them has are left out.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    ours, our_schemas = _translated()
    for route in ROUTES:
        operation = _from_native(route, native)
        if operation is None and (route.local or not native):
            operation = ours.get(route.key)
        if operation is not None:
            paths.setdefault(route.template, {})[route.method.lower()] = operation
    schemas |= our_schemas
    for document in native:
        schemas |= document.get("components", {}).get("schemas", {})
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": rayserve_platform.__version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _from_native(route: Route, native: list[dict[str, Any]]) -> dict[str, Any] | None:
    if route.local:
        return None
    for document in native:
        operation = document.get("paths", {}).get(route.template, {}).get(route.method.lower())
        if operation is not None:
            found: dict[str, Any] = operation
            return found
    return None


@cache
def _translated() -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return our own description of each route that we can answer, and the schemas it refers to."""
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (model, "validation") for model in BODIES.values()
    ]
    references, definitions = models_json_schema(
        models, ref_template="#/components/schemas/{model}"
    )
    operations: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        if route.verb is None:
            continue
        operation: dict[str, Any] = {
            "summary": route.verb.replace("_", " ").capitalize(),
            "responses": {"200": {"description": "OK"}},
        }
        body = BODIES.get(route.verb)
        if body is not None:
            content = {"application/json": {"schema": references[(body, "validation")]}}
            operation["requestBody"] = {"required": True, "content": content}
        if "{model}" in route.template:
            operation["parameters"] = [
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        operations[route.key] = operation
    return operations, definitions.get("$defs", {})
