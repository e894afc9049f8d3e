import itertools
import pickle

import pytest

from rayserve_platform.core.errors import Code, PlatformError, internal_error


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
