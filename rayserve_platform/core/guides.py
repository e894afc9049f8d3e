"""Bounds of what an answer can be asked to match, checked before anything compiles it.

A grammar's compiler takes memory and time by the size of what it is given, and a repetition inside
a repetition makes a few characters very large (CVE-2025-48944 is of that kind).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError

MAX_CHARS = 65_536
"""Of a schema, pattern, grammar or list of choices. Schemas that people write have a tenth."""
MAX_WEIGHT = 10_000
"""Of a pattern: its characters, each as often as it may be repeated by a count."""

_COUNT = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)


def check_size(text: str, param: str) -> None:
    """Refuse a guide that is too long.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    if len(text) > MAX_CHARS:
        raise _refusal(f"'{param}' must have at most {MAX_CHARS} characters.", param)


def check_pattern(pattern: str, param: str) -> None:
    """Refuse a regular expression that is too long, or grows too large.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    check_size(pattern, param)
    if weight(pattern) > MAX_WEIGHT:
        text = f"The pattern in '{param}' repeats too much: {MAX_WEIGHT} characters are the most."
        raise _refusal(text, param)


def check_text(schema: str, param: str) -> None:
    """Refuse a JSON schema that is too long, or has a pattern in it that is refused by itself.

    What is no JSON is the compiler's to explain.
    """
    check_size(schema, param)
    try:
        decoded = json.loads(schema)
    except RecursionError:
        raise _refusal(f"The schema in '{param}' is nested too deeply.", param) from None
    except ValueError:
        return
    check_schema(decoded, param)


def check_schema(schema: Any, param: str) -> None:
    """Refuse a decoded JSON schema with a pattern in it that is refused by itself."""
    for pattern in _patterns(schema):
        check_pattern(pattern, param)


def weight(pattern: str) -> int:
    """Return how many characters a pattern has when its counted repetitions are written out."""
    sums, last, place = [0], 0, 0
    while place < len(pattern):
        char = pattern[place]
        count = _COUNT.match(pattern, place) if char == "{" else None
        if count is not None:
            times = max(int(count[1]), int(count[2] or 0))
            sums[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
            place = count.end()
            continue
        if char == "(":
            sums.append(0)
        elif char == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        else:
            last = 1
            sums[-1] += 1
        place = _after(pattern, place)
    return sum(sums)


def _after(pattern: str, place: int) -> int:
    """Return where the next piece begins; an escape and a class of characters are one each."""
    if pattern[place] == "\\":
        return place + 2
    found = _CLASS.match(pattern, place) if pattern[place] == "[" else None
    return found.end() if found else place + 1


def _patterns(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("pattern"), str):
                yield part["pattern"]
            if isinstance(part.get("patternProperties"), dict):
                yield from part["patternProperties"]
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _refusal(message: str, param: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, message, param=param)
