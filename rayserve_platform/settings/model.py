"""The base of every settings class: frozen, and an unknown key names the nearest known one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

Kind = TypeVar("Kind", bound=BaseModel)


def unknown_key(key: str, known: Iterable[str], what: str) -> str:
    """Say that `key` is not one of `known`, and which of them was probably meant."""
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
    return f"unknown {what} '{key}'; {hint}"


class Settings(BaseModel):
    """Base of all settings. Unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = {f.alias or name for name, f in cls.model_fields.items()}
            for key in data:
                if key not in known:
                    raise ValueError(unknown_key(str(key), known, "setting"))
        return data


def validated(kind: type[Kind], content: Any, fault: type[Exception], where: str) -> Kind:
    """Return settings of what a file holds; what is wrong is raised as `fault`, with its place."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise fault(f"{where}: {'; '.join(explain(error))}") from None


def explain(error: ValidationError) -> list[str]:
    """Turn a validation error into one line a problem: `where: what`, without pydantic's links."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"]) or "args"
        lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return lines
