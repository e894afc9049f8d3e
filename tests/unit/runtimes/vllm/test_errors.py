"""vLLM's exceptions as ours."""

import pytest
from vllm.exceptions import (
    MaxQueuedTokensError,
    QueueOverflowError,
    VLLMNotFoundError,
    VLLMValidationError,
)
from vllm.v1.engine.exceptions import EngineDeadError

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.vllm.errors import map_exceptions


def mapped(error: Exception) -> PlatformError:
    with pytest.raises(PlatformError) as caught, map_exceptions():
        raise error
    assert caught.value.__suppress_context__
    return caught.value


def test_a_dead_engine_is_unavailable_and_says_nothing_of_why():
    error = mapped(EngineDeadError())
    assert (error.code, error.message) == (
        Code.UNAVAILABLE,
        "The model's engine is not available. Retry later.",
    )


@pytest.mark.parametrize("kind", [QueueOverflowError, MaxQueuedTokensError])
def test_a_full_queue_is_overload_with_the_time_to_come_back(kind):
    error = mapped(kind())
    assert (error.code, error.retry_after_s) == (Code.RESOURCE_EXHAUSTED, 1)


def test_what_the_caller_got_wrong_is_passed_on_without_addresses():
    for kind in (VLLMValidationError, ValueError):
        error = mapped(kind("top_p must be in (0, 1], got <Object at 0x7f0011223344>"))
        assert error.code is Code.INVALID_ARGUMENT
        assert error.message.startswith("top_p must be in (0, 1]")
        assert "0x7f0011223344" not in error.message


def test_what_does_not_exist_is_not_found():
    error = mapped(VLLMNotFoundError("The adapter 'poet' does not exist."))
    assert (error.code, error.message) == (
        Code.NOT_FOUND,
        "The adapter 'poet' does not exist.",
    )


def test_our_own_errors_and_unknown_ones_pass():
    ours = PlatformError(Code.NOT_FOUND, "no")
    for error in (ours, RuntimeError("what?"), KeyError("x")):
        with pytest.raises(type(error)) as caught, map_exceptions():
            raise error
        assert caught.value is error
