"""Request bodies of Caikit's REST API, one pydantic model a task, named as in the original.

Their messages are part of the API: clients read them from 422 answers. Every field may be left out,
none may be null or unknown, and pydantic's lax mode accepts "3", 3.0 and true as integers.
"""

from collections.abc import Mapping
from types import GenericAlias
from typing import Annotated, Any, get_origin

from pydantic import BaseModel, ConfigDict, FailFast, create_model
from pydantic_core import from_json

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.protocols.caikit.tasks import TASKS, CaikitTask

CONFIG = ConfigDict(extra="forbid", protected_namespaces=())
LARGE_BYTES = 2**13
"""From here on a body's lists are checked up to their first fault only, and its unknown fields are
counted first: pydantic notes every fault at fifty times the size of what it is about."""
MAX_FIELDS = 64


def parse(task: CaikitTask, body: str) -> BaseModel:
    """Check a body against the schema of its task.

    Raises:
        pydantic.ValidationError: what is wrong with it, in the original's words.
        PlatformError: INVALID_ARGUMENT when a large body has very many fields.
    """
    if len(body) < LARGE_BYTES:
        return BODIES[task.name].model_validate_json(body)
    _count_fields(body)
    return LARGE_BODIES[task.name].model_validate_json(body)


def _count_fields(body: str) -> None:
    try:
        content = from_json(body)
    except ValueError:
        return  # the model says so in its own words
    if isinstance(content, dict):
        for part in (content, content.get("inputs"), content.get("parameters")):
            if isinstance(part, dict) and len(part) > MAX_FIELDS:
                raise PlatformError(
                    Code.INVALID_ARGUMENT, f"The request has more than {MAX_FIELDS} fields."
                )


def _model(name: str, fields: Mapping[str, Any], *, fail_fast: bool) -> type[BaseModel]:
    """Make a model whose fields may all be left out; a mapping stands for a model inside it."""

    def kind(field: str, type_: Any) -> Any:
        if isinstance(type_, Mapping):
            title = "".join(part.capitalize() for part in field.split("_"))
            return _model(f"caikit_data_model.caikit_nlp.{title}", type_, fail_fast=fail_fast)
        is_list = isinstance(type_, GenericAlias) and get_origin(type_) is list
        return Annotated[type_, FailFast()] if is_list and fail_fast else type_

    declared: dict[str, Any] = {
        field: (kind(field, type_), None) for field, type_ in fields.items()
    }
    return create_model(name, __config__=CONFIG, **declared)


def _body(task: CaikitTask, *, fail_fast: bool) -> type[BaseModel]:
    """`inputs` is the value itself where there is only one, else an object."""
    prefix = f"caikit.http.{task.title}.{task.title}Request"
    inputs: Any = next(iter(task.inputs.values()))
    if len(task.inputs) > 1:
        inputs = _model(f"{prefix}Inputs", task.inputs, fail_fast=fail_fast)
    fields: dict[str, Any] = {"inputs": inputs}
    if task.parameters:
        fields["parameters"] = _model(f"{prefix}Parameters", task.parameters, fail_fast=fail_fast)
    fields["model_id"] = str
    return _model(f"{prefix}HttpRequest", fields, fail_fast=fail_fast)


BODIES = {task.name: _body(task, fail_fast=False) for task in TASKS}
LARGE_BODIES = {task.name: _body(task, fail_fast=True) for task in TASKS}
