"""Bounds of what an answer can be asked to match, checked before anything compiles it.

A grammar's compiler takes memory and time by the size of what it is given, and a repetition inside
a repetition makes a few characters very large (CVE-2025-48944 is of that kind).
"""

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError

MAX_CHARS = 65_536
"""Of a schema, pattern, grammar or list of choices. Schemas that people write have a tenth."""
MAX_WEIGHT = 10_000
"""Of a pattern: its characters, each as often as it may be repeated by a count."""
MAX_LEVELS = 128
"""Of a schema, its objects and lists. xgrammar 0.2.8 takes 0.1 s for 64 objects in one another,
which have as many, and 28 s for 900 arrays (128,000 tokens, one core, as all below)."""
LONG = 128
"""From here on xgrammar builds what it can't share: with a vocabulary of 49,000 tokens it takes
2.8 s for all `maxLength` up to it together, and 0.5 s for each above."""
MAX_LENGTHS = 16
"""Different pairs of `minLength` and `maxLength` of which one is above `LONG`: 8.5 s. A form of 64
would keep an engine for 34 s, with a vocabulary of 128,000 tokens for minutes."""
MAX_RANGES = 32
"""Such pairs up to `LONG` whose `minLength` is above 1: 0.2 s each."""
MAX_OPTIONAL = 100_000
"""The squares of the numbers of optional properties of each object, together: xgrammar takes 11 s
for 400 in one. Where their number is bounded as well it is the third power: 6 s for 100."""
MAX_MULTIPLE = 10_000
"""Of one `multipleOf`, its digits: llguidance 1.7.6, which vLLM takes for them, builds a state for
each remainder, and needs 4 s and 50 MB for 1,000,003. Where several hold for one number, their
least common multiple counts: 997 beside an `anyOf` of 991 and 983 takes 56 s and 1.8 GB."""
MAX_MULTIPLES = 100_000
"""All different ones together: those of several properties are built one by one, 3.4 s and 340 MB
for the hundred largest primes below 10,000."""
MERGING = ("$ref", "anyOf", "oneOf", "if", "dependentSchemas")
"""What holds beside the rest of a schema. In `allOf` several hold already, and of the patterns of
`patternProperties` several may be for one name."""
MERGED = (
    "multipleOf",
    "properties",
    "patternProperties",
    "additionalProperties",
    "items",
    "prefixItems",
)
"""In what a schema may have a `multipleOf` besides."""

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
    """Refuse a decoded JSON schema that would take seconds to compile, or one of its patterns."""
    if _levels(schema) > MAX_LEVELS:
        text = f"The schema in '{param}' is nested too deeply: {MAX_LEVELS} levels are the most."
        raise _refusal(text, param)
    check_together(schema, param)


def check_together(schema: Any, param: str) -> None:
    """Refuse schemas that would take seconds to compile into one, or one of their patterns.

    Args:
        schema: a schema, or a list of several.
        param: where they stand in a request.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    lengths: set[tuple[int, int]] = set()
    multiples: set[int] = set()
    optional, is_merged = 0, False
    for part in _objects(schema):
        for pattern in _patterns(part):
            check_pattern(pattern, param)
        lengths.add((_length(part.get("minLength")), _length(part.get("maxLength"))))
        multiples.add(_digits(part.get("multipleOf")))
        optional += _optional(part)
        is_merged = is_merged or _merges(part)
    _check_lengths(lengths, param)
    if optional > MAX_OPTIONAL:
        raise _refusal(f"The schema in '{param}' has too many optional properties.", param)
    _check_multiples(multiples, param, is_merged=is_merged)


def _check_multiples(multiples: set[int], param: str, *, is_merged: bool) -> None:
    if max(multiples, default=1) > MAX_MULTIPLE:
        text = f"The digits of 'multipleOf' in '{param}' must be at most {MAX_MULTIPLE}."
        raise _refusal(text, param)
    if sum(multiples) > MAX_MULTIPLES:
        raise _refusal(f"The schema in '{param}' has too many different 'multipleOf'.", param)
    if is_merged and math.lcm(*multiples) > MAX_MULTIPLE:
        text = f"must have digits whose least common multiple is at most {MAX_MULTIPLE}"
        raise _refusal(f"All 'multipleOf' in '{param}' {text}.", param)


def _check_lengths(lengths: set[tuple[int, int]], param: str) -> None:
    long = sum(max(pair) > LONG for pair in lengths)
    ranges = sum(max(pair) <= LONG and pair[0] > 1 for pair in lengths)
    if long > MAX_LENGTHS:
        text = f"more than {MAX_LENGTHS} different lengths of strings above {LONG}"
        raise _refusal(f"The schema in '{param}' has {text}.", param)
    if ranges > MAX_RANGES:
        text = f"more than {MAX_RANGES} different 'minLength' with their 'maxLength'"
        raise _refusal(f"The schema in '{param}' has {text}.", param)


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


def _levels(schema: Any) -> int:
    """Return how many objects and lists stand in one another."""
    count, level = 0, [schema]
    while level := [part for part in level if isinstance(part, dict | list)]:
        count += 1
        level = [
            inner for part in level for inner in (part.values() if isinstance(part, dict) else part)
        ]
    return count


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _patterns(part: dict[str, Any]) -> Iterator[str]:
    if isinstance(part.get("pattern"), str):
        yield part["pattern"]
    if isinstance(part.get("patternProperties"), dict):
        yield from part["patternProperties"]


def _optional(part: dict[str, Any]) -> int:
    """Return what the optional properties of one object weigh."""
    properties, required = part.get("properties"), part.get("required")
    if not isinstance(properties, dict):
        return 0
    needed = {str(name) for name in required} if isinstance(required, list) else set()
    count = sum(name not in needed for name in properties)
    is_counted = "minProperties" in part or "maxProperties" in part
    return count**3 // 5 if is_counted else count**2


def _length(count: Any) -> int:
    """Return a bound of a string's length; what is none bounds nothing."""
    if isinstance(count, float):
        return int(count) if math.isfinite(count) else 0
    return count if isinstance(count, int) else 0


def _merges(part: dict[str, Any]) -> bool:
    """Say whether a schema has parts that hold for one value together."""
    besides = sum(key in part for key in MERGING)
    own = any(key in part for key in MERGED)
    several = "allOf" in part or "patternProperties" in part
    return several or (besides > 0 and besides + own > 1)


def _digits(number: Any) -> int:
    """Return a number without its point and its zeros behind: what a multiple is looked for by."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return 1
    try:
        digits = Decimal(str(number)).normalize().as_tuple().digits
        return int("".join(map(str, digits))) or 1
    except (ArithmeticError, ValueError):
        return 1  # not a number


def _refusal(message: str, param: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, message, param=param)
