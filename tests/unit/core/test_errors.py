import itertools
import pickle

import pytest

from rayserve_platform.core.errors import (
    Code,
    PlatformError,
    PromptTooLong,
    check_room,
    internal_error,
)


def test_there_are_exactly_nine_codes():
    assert {code.value for code in Code} == {
        "invalid_argument",
        "unauthenticated",
        "permission_denied",
        "not_found",
        "resource_exhausted",
        "deadline_exceeded",
        "unimplemented",
        "unavailable",
        "internal",
    }


@pytest.mark.parametrize(
    ("code", "param", "retry_after_s"),
    list(itertools.product(Code, [None, "model"], [None, 0.0, 2.5])),
)
def test_every_field_of_an_error_survives_pickling(code, param, retry_after_s):
    error = PlatformError(code, "what to do", param=param, retry_after_s=retry_after_s)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is PlatformError
    assert (again.code, again.message, again.param, again.retry_after_s) == (
        code,
        "what to do",
        param,
        retry_after_s,
    )
    assert isinstance(again.code, Code)


def test_an_error_reads_as_its_message():
    assert str(PlatformError(Code.NOT_FOUND, "no such model")) == "no such model"


def test_an_internal_error_says_nothing_of_its_cause():
    error = internal_error()
    assert (error.code, error.message, error.param) == (Code.INTERNAL, "internal error", None)


def test_a_prompt_that_is_too_long_keeps_its_numbers_when_pickled():
    error = PromptTooLong(limit=10, token_count=9, min_new_tokens=2)
    again = pickle.loads(pickle.dumps(error))
    assert (again.limit, again.token_count, again.min_new_tokens) == (10, 9, 2)
    assert (again.code, again.message) == (Code.INVALID_ARGUMENT, error.message)


@pytest.mark.parametrize(("tokens", "least", "room"), [(0, 0, 10), (9, 1, 1), (4, 6, 6)])
def test_the_room_behind_a_prompt_is_what_it_leaves(tokens, least, room):
    assert check_room(limit=10, token_count=tokens, min_new_tokens=least) == room


@pytest.mark.parametrize(("tokens", "least", "told"), [(10, 0, 0), (12, 3, 0), (9, 2, 2)])
def test_no_room_for_a_token_is_told_before_no_room_for_all_demanded(tokens, least, told):
    with pytest.raises(PromptTooLong) as caught:
        check_room(limit=10, token_count=tokens, min_new_tokens=least)
    assert (caught.value.token_count, caught.value.min_new_tokens) == (tokens, told)
