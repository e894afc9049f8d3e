"""What is checked, in which order and in which words: those of the recorded answers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.protocols.tgis.validation import check

DATA = Path(__file__).parents[3] / "data/tgis"
TOKENS = ("input tokens", "adapter")
"""Beginnings of what a runtime is needed to find out."""


def recorded(code: str) -> list[Any]:
    cases = json.loads((DATA / "default.json").read_text())["cases"]
    return [
        pytest.param(case["req"].get("params", {}), case["result"]["details"], id=case["name"])
        for case in cases
        if case["rpc"] == "Generate"
        and case["result"]["code"] == code
        and not case["result"]["details"].startswith(TOKENS)
    ]


def problem(options: Any, params: Any) -> str | None:
    try:
        check(params, options)
    except PlatformError as error:
        return f"{error.code}: {error.message}".removeprefix(f"{Code.INVALID_ARGUMENT}: ")
    return None


@pytest.mark.parametrize(("params", "details"), recorded("INVALID_ARGUMENT"))
def test_what_was_refused_is_refused_in_the_same_words(params, details, make_options):
    message = json_format.ParseDict(params, pb.Parameters())
    assert problem(make_options(), message) == details


@pytest.mark.parametrize(("params", "_"), recorded("OK"))
def test_what_was_answered_is_not_refused(params, _, make_options):
    message = json_format.ParseDict(params, pb.Parameters())
    assert problem(make_options(), message) is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"decoding": {"lengthPenalty": {"decayFactor": 0.5}}}, "length_penalty.decay_factor must"),
    ({"decoding": {"repetitionPenalty": 2.5}}, "repetition_penalty must be > 0.0 and <= 2.0"),
    ({"stopping": {"maxNewTokens": 1025, "minNewTokens": 9}}, "max_new_tokens must be <= 1024"),
    ({"stopping": {"maxNewTokens": 8, "minNewTokens": 9}}, "min_new_tokens must be <= max"),
    ({"stopping": {"stopSequences": [""]}}, "can specify at most 6"),
    ({"response": {"topNTokens": 11}}, "top_n_tokens (11) must be <= 10"),
    ({"response": {"tokenRanks": True}}, "must request input and/or generated tokens"),
    ({"sampling": {"topP": 1.5}}, "top_p must be > 0.0 and <= 1.0"),
    ({"sampling": {"typicalP": 1.5}}, "typical_p must be <= 1.0"),
    ({"decoding": {"choice": {"choices": ["a"]}}}, "Must provide at least two choices"),
    ({"sampling": {"temperature": -1}}, "temperature must be non-negative, got -1.0."),
]
"""A mistake of each kind, in the order in which the adapter looks for them."""


@pytest.mark.parametrize("first", range(len(WRONG)))
def test_of_several_mistakes_the_first_in_order_is_told(first, make_options):
    message = pb.Parameters()
    for fields, _ in reversed(WRONG[first:]):
        json_format.ParseDict(fields, message)
    told = problem(make_options(), message)
    assert told is not None
    assert told.startswith(WRONG[first][1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("group", "field"),
    [
        ("decoding", "repetition_penalty"),
        ("sampling", "top_p"),
        ("sampling", "temperature"),
    ],
)
def test_what_is_no_number_is_refused(value, group, field, make_options):
    message = pb.Parameters()
    setattr(getattr(message, group), field, value)
    assert field in (problem(make_options(), message) or "")


def test_a_typical_p_that_is_no_number_is_refused_and_a_negative_one_is_not(make_options):
    message = pb.Parameters()
    message.sampling.typical_p = math.nan
    assert problem(make_options(), message) == "typical_p must be <= 1.0"
    message.sampling.typical_p = -5.0
    assert problem(make_options(), message) is None


def test_the_least_is_held_against_what_the_server_gives_otherwise(make_options, parameters):
    least = parameters(stopping={"minNewTokens": 21})
    assert problem(make_options(), least) == "min_new_tokens must be <= max_new_tokens"
    assert problem(make_options(default_max_new_tokens=None), least) is None
    bounded = parameters(stopping={"maxNewTokens": 17})
    limits = make_options(default_max_new_tokens=None, max_new_tokens=16)
    assert problem(limits, bounded) == "max_new_tokens must be <= 16"


@pytest.mark.parametrize("field", ["regex", "jsonSchema", "grammar"])
def test_an_empty_guide_is_no_guide(field, make_options, parameters):
    assert "must not be empty" in (problem(make_options(), parameters(decoding={field: ""})) or "")
