"""multipart/form-data bodies: `parameters.top_n` is the field `top_n` of `parameters`."""

from collections.abc import AsyncGenerator
from typing import Any

import orjson
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from rayserve_platform.protocols.caikit.tasks import CaikitTask
from rayserve_platform.protocols.caikit.translate import invalid

MAX_FIELDS = 1000
MAX_DEPTH = 8


async def to_json(task: CaikitTask, content_type: bytes, body: bytes) -> str:
    """Return the JSON body that a form stands for. Numbers stay texts, which the schema allows.

    A field that is sent several times is a list, and so is one that the schema has as a list.

    Raises:
        PlatformError: INVALID_ARGUMENT when it can't be read.
    """
    content: dict[str, Any] = {}
    for name, value in await _fields(content_type, body):
        *path, last = name.split(".")
        if len(path) >= MAX_DEPTH:
            raise invalid(f"The field '{name[:200]}' is nested too deeply.")
        place: Any = content
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise invalid(f"The field '{part[:200]}' has both a value and fields of its own.")
        _add(place, last, value, listed=_is_list(task, name))
    return orjson.dumps(content).decode()


async def _fields(content_type: bytes, body: bytes) -> list[tuple[str, str]]:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield body

    headers = Headers(raw=[(b"content-type", content_type)])
    parser = MultiPartParser(
        headers, pieces(), max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
        return [(name, await _text(value)) for name, value in form.multi_items()]
    except (MultiPartException, KeyError, ValueError):
        raise invalid("The request body is not a valid multipart form.") from None


async def _text(value: UploadFile | str) -> str:
    if isinstance(value, str):
        value.encode()  # a surrogate is no text
        return value
    try:
        return (await value.read()).decode()
    finally:
        await value.close()


def _is_list(task: CaikitTask, name: str) -> bool:
    head, _, field = name.partition(".")
    kinds = {"inputs": task.inputs, "parameters": task.parameters}.get(head, {})
    kind = kinds.get(field or next(iter(kinds), ""))
    return getattr(kind, "__origin__", None) is list


def _add(place: dict[str, Any], name: str, value: str, *, listed: bool) -> None:
    if name not in place:
        place[name] = [value] if listed else value
    elif isinstance(place[name], list):
        place[name].append(value)
    elif isinstance(place[name], dict):
        raise invalid(f"The field '{name[:200]}' has both a value and fields of its own.")
    else:
        place[name] = [place[name], value]
