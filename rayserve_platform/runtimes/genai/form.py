"""The form of an answer: `Guided` as the library's config, and what is refused unread.

The library's parsers recurse, and repeat what is in braces: these checks spare us the worst, and
`trial` the rest. They also take NUL for a text's end, and a hexadecimal escape of two digits, as
which the library writes down U+0080 to U+00FF itself, together with the digits behind it (2026.4:
"Mädchen" gets the character U+E4DC for two).
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import openvino_genai

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Guided

DEEPEST = 64
"""Levels of a schema, and of brackets in a pattern or grammar."""
MOST_REPEATED = 1_000_000
"""How often something may be repeated by braces in braces."""
LONGEST_NAMED = 60
LARGEST = 256 * 1024
"""Characters; compiling a guide takes longer than its length."""

# All of them read a text once: what is not closed goes on to its end.
_CLASS = r"\[(?:\\.?|[^\]\\])*+(?:\]|\Z)"
_ESCAPE = r"\\(?:(?P<none>0|x00|u0000|u\{0+\}|U0{8}|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
_STRING = re.compile(r'#[^\n]*|(?P<string>"(?:\\.?|[^"\\])*+(?:"|\Z))|' + _CLASS, re.DOTALL)
_IN_STRING = re.compile(_ESCAPE, re.DOTALL)
_IN_PATTERN = re.compile(f"(?P<byte>\\\\x[0-9a-fA-F]{{2}})|{_ESCAPE}|{_CLASS}", re.DOTALL)
_SIGN = re.compile(r"\{\s*+(\d*+)\s*+(?:,\s*+(\d*+)\s*+)?+\}|.", re.DOTALL)
_NONE = re.compile(r"[\0\ud800-\udfff]")
_AMBIGUOUS = re.compile(r"(?<=[\x01-\x1f\x7f-\xff])(?=[0-9a-fA-F])")


def to_structure(guided: Guided) -> Any:
    """Return what keeps an answer to a form; it has been checked."""
    text = guided.value if isinstance(guided.value, str) else ""
    config = openvino_genai.StructuredOutputConfig()
    match guided.kind:
        case "json":
            config.json_schema = '{"type": "object"}'
        case "json_schema":
            config.json_schema = text
        case "regex":
            config.regex = _IN_PATTERN.sub(lambda m: f"[{m[0]}]" if m["byte"] else m[0], text)
        case "grammar":
            config.grammar = _STRING.sub(lambda m: _parted(m[0]) if m["string"] else m[0], text)
        case "choice":
            config.grammar = "root ::= " + " | ".join(map(_option, guided.value))
    return config


def _parted(string: str) -> str:
    """Return a grammar's string as several where the library would mistake a character."""
    parts = _AMBIGUOUS.split(string)
    return "({})".format('" "'.join(parts)) if len(parts) > 1 else string


def _option(text: str) -> str:
    # A JSON string is a string of the grammar's as well.
    return " ".join(json.dumps(part, ensure_ascii=False) for part in _AMBIGUOUS.split(text))


def check_form(guided: Guided) -> None:
    """Refuse what is no guide, or too much of one.

    Raises:
        PlatformError: INVALID_ARGUMENT, or UNIMPLEMENTED for a schema's characters.
    """
    texts = (guided.value,) if isinstance(guided.value, str) else guided.value
    if guided.kind == "choice" and not (texts and all(texts)):
        raise _bad("must offer choices that are not empty")
    size = sum(map(len, texts))
    if size > LARGEST:
        raise _bad(f"must have at most {LARGEST} characters, got {size}")
    for text in texts:
        if _NONE.search(text):
            raise _no_character()
        match guided.kind:
            case "regex":
                _check_pattern(text)
            case "grammar":
                _check_grammar(text)
            case "json_schema":
                _check_schema(text)


def _check_pattern(text: str) -> None:
    _check_escapes(_IN_PATTERN.finditer(text))
    _check_brackets(_IN_PATTERN.sub("a", text))


def _check_grammar(text: str) -> None:
    for found in _STRING.finditer(text):
        _check_escapes(_IN_STRING.finditer(found["string"] or ""))
    _check_brackets(_STRING.sub("a", text))


def _check_escapes(found: Iterable[re.Match[str]]) -> None:
    if any(escape["none"] or escape[0] == r"\x00" for escape in found):
        raise _no_character()


def _check_brackets(text: str) -> None:
    """Refuse brackets in too many brackets, and braces that together repeat something too often."""
    repeated, last = [1.0], 1.0
    for sign in _SIGN.finditer(text):
        if sign[1]:
            times = max(float(sign[2] or sign[1]), 1)
            if last > 1 and last * times > MOST_REPEATED:
                raise _bad(f"repeats something more than {MOST_REPEATED} times by braces in braces")
            last *= times
        elif sign[0] in "([{":
            repeated.append(1)
            last = 1
        elif sign[0] in ")]}" and len(repeated) > 1:
            last = repeated.pop()
        elif not sign[0].isspace():
            last = 1
        repeated[-1] = max(repeated[-1], last)
        if len(repeated) > DEEPEST:
            raise _bad(f"holds brackets in more than {DEEPEST} levels")


def _check_schema(text: str) -> None:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad("holds a schema that is not JSON") from error
    for depth, level in enumerate(_levels(schema), 1):
        if depth > DEEPEST:
            raise _bad(f"holds a schema of more than {DEEPEST} levels")
        for value in level:
            if isinstance(value, str) and _NONE.search(value):
                raise _no_character()
            if isinstance(value, dict):
                _check_object(value)


def _levels(value: Any) -> Iterator[list[Any]]:
    """Yield a JSON value, what is in it, what is in that, and so on, without recursion."""
    level = [value]
    while level:
        yield level
        inner: list[Any] = []
        for outer in level:
            if isinstance(outer, dict):
                inner += (*outer.keys(), *outer.values())
            elif isinstance(outer, list):
                inner += outer
        level = inner


def _check_object(schema: dict[str, Any]) -> None:
    for pattern in (schema.get("pattern"), *_within(schema.get("patternProperties"))):
        if isinstance(pattern, str):
            _check_pattern(pattern)
    named = [_within(schema.get(name)) for name in ("enum", "properties")]
    for text in itertools.chain([schema.get("const")], *named):
        if isinstance(text, str) and _AMBIGUOUS.search(text):
            raise PlatformError(
                Code.UNIMPLEMENTED,
                f"The genai runtime can't write '{text[:LONGEST_NAMED]}' of 'guided': it holds "
                "a character from U+0080 to U+00FF before one of 0-9, a-f or A-F.",
                param="guided",
            )


def _within(value: Any) -> Iterable[Any]:
    """Return an object's keys or a list's values."""
    return value if isinstance(value, dict | list) else ()


def _no_character() -> PlatformError:
    return _bad("must not hold U+0000 or half of a surrogate pair")


def _bad(problem: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, f"'guided' {problem}.", param="guided")
