"""Patterns, grammars and schemas that are small to send and large to compile."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.guides import (
    MAX_CHARS,
    MAX_WEIGHT,
    check_pattern,
    check_size,
    check_text,
    weight,
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", 0),
        ("abc", 3),
        (r"\d{4}-\d{2}-\d{2}", 10),
        ("a{3}", 3),
        ("a{2,5}", 5),
        ("a{3,}", 3),
        ("(ab){3}", 6),
        ("((ab){3}c){2}", 14),
        ("[a-z]{3}", 3),
        (r"[\]}]{3}", 3),
        ("[]a]{3}", 3),
        (r"\{3\}", 3),
        ("{", 1),
        ("a{,3}", 5),
        ("a{x}", 4),
        ("a)b", 3),
        ("(?:ab){2}", 8),
    ],
)
def test_a_patterns_weight_is_its_length_written_out(pattern: str, expected: int) -> None:
    assert weight(pattern) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{3}-\d{4}$",
        r"((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.?\b){4}",
        r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}\.[A-Za-z]{2,}",
        ".{1,5000}",
    ],
)
def test_patterns_that_people_write_pass(pattern: str) -> None:
    check_pattern(pattern, "regex")


@pytest.mark.parametrize(
    "pattern",
    [
        "a{10001}",
        "(a{1000}){1000}",
        "((a{100}){100}){2}",
        "(" * 9 + "a" + "{9})" * 9,
        "a{1,999999999}",
    ],
)
def test_a_pattern_that_grows_too_large_is_refused(pattern: str) -> None:
    for check in (
        lambda: check_pattern(pattern, "regex"),
        lambda: check_text(json.dumps({"properties": {"a": {"pattern": pattern}}}), "regex"),
        lambda: check_text(json.dumps({"allOf": [{"patternProperties": {pattern: {}}}]}), "regex"),
    ):
        with pytest.raises(PlatformError, match=f"repeats too much: {MAX_WEIGHT}") as caught:
            check()
        assert caught.value.param == "regex"


def test_a_guide_that_is_too_long_is_refused() -> None:
    check_size("a" * MAX_CHARS, "grammar")
    with pytest.raises(PlatformError, match="'grammar' must have at most 65536 characters"):
        check_size("a" * (MAX_CHARS + 1), "grammar")


def test_a_schema_without_a_bottom_is_told() -> None:
    with pytest.raises(PlatformError, match="nested too deeply"):
        check_text('{"a":' * 9_000 + "1" + "}" * 9_000, "json_schema")


def _within(levels: int) -> object:
    schema: object = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def _properties(count: int, **more: object) -> dict[str, object]:
    return {"properties": {f"p{i}": {"type": "integer"} for i in range(count)}, **more}


def _strings(count: int, most: int = 129, least: int = 0) -> object:
    return {
        "properties": {
            f"p{i}": {"type": "string", "minLength": least, "maxLength": most + i}
            for i in range(count)
        }
    }


def _numbers(*multiples: float) -> dict[str, object]:
    return {"properties": {f"p{i}": {"multipleOf": each} for i, each in enumerate(multiples)}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (_within(900), "nested too deeply: 128 levels"),
        (_within(128), "nested too deeply: 128 levels"),
        ({"anyOf": [_strings(17)]}, "more than 16 different lengths of strings above 128"),
        (_strings(17, 10**6), "more than 16 different lengths of strings above 128"),
        ({"allOf": [{"minLength": 10**400 + i} for i in range(17)]}, "more than 16 different"),
        (_strings(33, 90, 2), "more than 32 different 'minLength'"),
        (_properties(400), "too many optional properties"),
        (_properties(100, maxProperties=50), "too many optional properties"),
        (_properties(100, minProperties=1), "too many optional properties"),
        ({"allOf": [_properties(60)] * 30}, "too many optional properties"),
        ({"multipleOf": 1_000_003}, "'multipleOf'"),
        ({"multipleOf": 1.000003}, "'multipleOf'"),
        ({"allOf": [{"multipleOf": 997}, {"multipleOf": 9.91}]}, "'multipleOf'"),
        ({"multipleOf": 997, "anyOf": [{"multipleOf": 991}, {"multipleOf": 983}]}, "'multipleOf'"),
        ({"multipleOf": 997, "$ref": "#/$defs/a", "$defs": {"a": {"multipleOf": 991}}}, "multiple"),
        ({"anyOf": [{"multipleOf": 997}], "oneOf": [{"multipleOf": 991}]}, "'multipleOf'"),
        ({**_numbers(997), "anyOf": [_numbers(991)]}, "'multipleOf'"),
        (
            {**_numbers(997), "patternProperties": {"^p": {"multipleOf": 991}}},
            "'multipleOf'",
        ),
        (_numbers(*range(9901, 9999)), "too many different 'multipleOf'"),
    ],
)
def test_a_schema_that_takes_seconds_to_compile_is_refused(schema: object, words: str) -> None:
    with pytest.raises(PlatformError, match=words) as caught:
        check_text(json.dumps(schema), "json_schema")
    assert caught.value.param == "json_schema"


@pytest.mark.parametrize(
    "schema",
    [
        _within(100),
        _strings(16),
        _strings(16, 10**400),
        _strings(64, 35),
        _strings(64, 35, 1),
        _strings(32, 90, 2),
        {"maxLength": 1e300, "minLength": float("inf"), "items": {"maxLength": "a"}},
        _numbers(0.25, 0.125, 15),
        _numbers(7, 24, 60, 365, 997),
        {**_numbers(0.25, 0.125, 15), "anyOf": [{"required": ["p0"]}, {"required": ["p1"]}]},
        {"anyOf": [{"multipleOf": 997}, {"multipleOf": 991}]},
        _properties(300),
        _properties(70, maxProperties=3),
        _properties(400, required=[f"p{i}" for i in range(390)]),
        {"type": "array", "minItems": 10**9, "maxItems": 10**9},
        {"enum": [f"value {i}" for i in range(3000)]},
        {"properties": {f"p{i}": {"type": "string", "maxLength": 10**6} for i in range(100)}},
        {"properties": {f"p{i}": {"multipleOf": 0.01} for i in range(100)}},
        {"properties": {"a": {"multipleOf": 1000}, "b": {"multipleOf": 1e300}}},
        {"multipleOf": True, "required": 1, "properties": [1], "patternProperties": None},
        {"multipleOf": float("nan"), "required": [1, None], "properties": {"a": 1}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}}}},
    ],
)
def test_schemas_that_compile_at_once_pass(schema: object) -> None:
    check_text(json.dumps(schema), "json_schema")


def test_what_is_no_json_is_left_to_the_compiler() -> None:
    check_text("{", "json_schema")


@given(st.text(alphabet="ab()[]{}\\^,0129*+?|", max_size=60))
def test_every_text_has_a_weight(pattern: str) -> None:
    assert weight(pattern) >= 0
