"""Paths into the authorization JSON in GJSON's notation: the part of it that Authorino documents.

Source: Authorino, docs/features.md, "Common feature: JSON paths": keys, indexes and `#`, the
modifiers `@extract`, `@replace`, `@case` and `@base64`, and templates with `{path}` in a text.
What has no value is null, which reads as an empty text; GJSON's queries (`#(…)`) are refused.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from rayserve_platform.edge.auth.expression import ROOTS, EvaluationFault, PolicyFault, named

Step = Callable[[Any], Any]

PLACEHOLDER = re.compile(r"\{((?:[^{}]|:\{[^{}]*\})*)\}")
SEGMENT = re.compile(r"@(\w+)(?::(\{[^{}]*\}|\w+))?|((?:\\.|[^.|\\@])+)")
REFUSED = re.compile(r"[*?()~!<>=\[\]]")


class Selector:
    """A compiled path or template.

    Args:
        names: the roots that it may name.

    Raises:
        PolicyFault: when it has what is not supported.
    """

    def __init__(self, text: str, where: str) -> None:
        self._where = f"{where}: selector {text!r}"
        # A modifier in the first place is about all there is, and an escaped name is another.
        self.names = ROOTS if re.search(r"(^|\{)@|\\", text) else named(text)
        found = PLACEHOLDER.split(text) if not text.startswith("@") else [text]
        is_template = len(found) > 1 and not re.search(r"@\w+:$", found[0])
        self._pieces: list[str | list[Step]] = []
        if is_template:
            for index, piece in enumerate(found):
                self._pieces.append(self._path(piece) if index % 2 else piece)
        else:
            self._pieces.append(self._path(text))

    def value(self, roots: Mapping[str, Any]) -> Any:
        """Return what is there, or None.

        Raises:
            EvaluationFault: as `written`.
        """
        if len(self._pieces) == 1 and not isinstance(self._pieces[0], str):
            return _walk(self._pieces[0], roots)
        return "".join(
            piece if isinstance(piece, str) else written(_walk(piece, roots))
            for piece in self._pieces
        )

    def _path(self, path: str) -> list[Step]:
        steps: list[Step] = []
        place = 0
        while place < len(path):
            found = SEGMENT.match(path, place)
            if found is None:
                raise PolicyFault(f"{self._where}: not understood from {path[place:]!r} on")
            modifier, argument, key = found.groups()
            steps.append(self._modifier(modifier, argument) if modifier else self._key(key))
            place = found.end()
            if place < len(path):
                if path[place] not in ".|" or place + 1 == len(path):
                    raise PolicyFault(f"{self._where}: not understood from {path[place:]!r} on")
                place += 1
        if not steps:
            raise PolicyFault(f"{self._where}: is empty")
        return steps

    def _key(self, raw: str) -> Step:
        if REFUSED.search(re.sub(r"\\.", "", raw)):
            raise PolicyFault(f"{self._where}: queries and wildcards are not supported; use CEL")
        key = re.sub(r"\\(.)", r"\1", raw)
        return lambda found: _member(found, key)

    def _modifier(self, name: str, argument: str | None) -> Step:
        if name not in MODIFIERS:
            known = ", ".join(f"@{known}" for known in MODIFIERS)
            raise PolicyFault(f"{self._where}: @{name} is not supported; known: {known}")
        make = MODIFIERS[name]
        try:
            given = orjson.loads(argument) if argument and argument[0] == "{" else argument or ""
            return make(given)
        except (orjson.JSONDecodeError, TypeError, ValueError, KeyError, AttributeError):
            raise PolicyFault(f"{self._where}: @{name} can't take {argument}") from None


def written(found: Any) -> str:
    """Return a value as text, as GJSON writes it: null as nothing, containers as JSON.

    Raises:
        EvaluationFault: as `as_json`.
    """
    if found is None:
        return ""
    if isinstance(found, str):
        return found if found.isascii() else _sound(found)
    if isinstance(found, bytes | bytearray):
        return bytes(found).decode("utf-8", "replace")
    return as_json(found).decode()


def as_json(found: Any) -> bytes:
    """Return a value as JSON; keys that are no texts, as those of CEL's maps, become some.

    Raises:
        EvaluationFault: when it has what JSON can't say: half a character, a number beyond 64 bits,
            too many levels.
    """
    try:
        return orjson.dumps(found, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise EvaluationFault(f"a value can't be written as JSON: {error}") from None


def _sound(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise EvaluationFault("a text has half a character") from None
    return text


def _walk(steps: Sequence[Step], roots: Any) -> Any:
    for step in steps:
        roots = step(roots)
    return roots


def _member(found: Any, key: str) -> Any:
    if isinstance(found, Mapping):
        return found.get(key)
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        if key == "#":
            return len(found)
        if key.isdigit() and int(key) < len(found):
            return found[int(key)]
    return None


def _extract(given: Mapping[str, Any]) -> Step:
    """Split a text and take one part."""
    separator, place = str(given.get("sep", " ")), int(given.get("pos", 0))

    def step(found: Any) -> Any:
        parts = written(found).split(separator)
        return parts[place] if 0 <= place < len(parts) else None

    return step


def _replace(given: Mapping[str, Any]) -> Step:
    old, new = str(given["old"]), str(given["new"])
    return lambda found: written(found).replace(old, new)


def _case(given: str) -> Step:
    if given not in ("upper", "lower"):
        raise ValueError
    return lambda found: written(found).upper() if given == "upper" else written(found).lower()


def _base64(given: str) -> Step:
    if given not in ("encode", "decode"):
        raise ValueError

    def step(found: Any) -> Any:
        text = written(found)
        if given == "encode":
            return base64.b64encode(text.encode()).decode()
        try:
            padded = text + "=" * (-len(text) % 4)
            return base64.b64decode(padded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None

    return step


MODIFIERS: dict[str, Callable[[Any], Step]] = {
    "extract": _extract,
    "replace": _replace,
    "case": _case,
    "base64": _base64,
}
