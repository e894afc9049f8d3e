"""One error type for the whole platform, free of any transport.

A `PlatformError` says what went wrong in one of nine codes; each transport has one total table from
code to status (`edge.http`, `edge.rpc`). The message is meant for the caller: it names the field,
the limit and what to do, and never carries a path, pid, address or the text of a foreign exception.
"""

from collections.abc import Iterable
from enum import StrEnum


class Code(StrEnum):
    """Why a request failed. Nine values, the same on every transport."""

    INVALID_ARGUMENT = "invalid_argument"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNIMPLEMENTED = "unimplemented"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class PlatformError(Exception):
    """A failure whose text the caller may read.

    Args:
        code: one of the nine codes.
        message: for the caller; names the field, its limit and what to do.
        param: the request field at fault, where there is one.
        retry_after_s: seconds after which a retry may succeed, where that is known.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries as values, so every field must survive pickling."""
        return (_rebuild, (self.code, self.message, self.param, self.retry_after_s))


class Refusal(PlatformError):
    """A failure of no request in itself: its caller may not make it, or not now.

    Args:
        rule: what refused it; for the audit log, not for the caller.
        headers: for the answer; over gRPC they are trailing metadata.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        rule: str = "",
        headers: Iterable[tuple[str, str]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)
        self.rule = rule
        self.headers = tuple(headers)

    def __reduce__(self) -> tuple[object, ...]:
        """A refusal is the ingress's own and never crosses a process; what is said here would."""
        return (_rebuild, (self.code, self.message, None, self.retry_after_s))


class InputTooLong(PlatformError):
    """Texts with more tokens than the model takes.

    Args:
        limit: the model's maximum in tokens, special tokens included.
        field: the list of the request that they are in: `inputs`, `queries` or `documents`.
        indexes: their places in that list, in the runtime's order; of many, only the first.
    """

    def __init__(self, *, limit: int, field: str, indexes: tuple[int, ...]) -> None:
        places = ", ".join(map(str, sorted(indexes)))
        super().__init__(
            Code.INVALID_ARGUMENT,
            f"'{field}' at index {places}: longer than this model's maximum of {limit} tokens.",
            param=field,
        )
        self.limit = limit
        self.field = field
        self.indexes = indexes

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_too_long, (self.limit, self.field, self.indexes))


class PromptTooLong(PlatformError):
    """A prompt that leaves the model no room for the new tokens it must have.

    Args:
        limit: the model's length in tokens, prompt and new tokens together.
        token_count: the prompt's tokens, after truncation.
        min_new_tokens: what the request demands; 0 where any number will do.
    """

    def __init__(self, *, limit: int, token_count: int, min_new_tokens: int = 0) -> None:
        demanded = f" and {min_new_tokens} new tokens are demanded" if min_new_tokens else ""
        super().__init__(
            Code.INVALID_ARGUMENT,
            f"This model's maximum context length is {limit} tokens, "
            f"but the prompt has {token_count}{demanded}.",
            param="prompt",
        )
        self.limit = limit
        self.token_count = token_count
        self.min_new_tokens = min_new_tokens

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_prompt, (self.limit, self.token_count, self.min_new_tokens))


def check_room(*, limit: int, token_count: int, min_new_tokens: int) -> int:
    """Return how many new tokens fit behind a prompt.

    Raises:
        PromptTooLong: when there is no room for one, or for the least that is demanded.
    """
    if token_count >= limit:
        raise PromptTooLong(limit=limit, token_count=token_count)
    if token_count + min_new_tokens > limit:
        raise PromptTooLong(limit=limit, token_count=token_count, min_new_tokens=min_new_tokens)
    return limit - token_count


def _rebuild_prompt(limit: int, token_count: int, min_new_tokens: int) -> PromptTooLong:
    return PromptTooLong(limit=limit, token_count=token_count, min_new_tokens=min_new_tokens)


def _rebuild_too_long(limit: int, field: str, indexes: tuple[int, ...]) -> InputTooLong:
    return InputTooLong(limit=limit, field=field, indexes=indexes)


def _rebuild(
    code: Code, message: str, param: str | None, retry_after_s: float | None
) -> PlatformError:
    return PlatformError(code, message, param=param, retry_after_s=retry_after_s)


def internal_error() -> PlatformError:
    """What a caller reads when the cause is unknown: the cause goes to the log, with the id."""
    return PlatformError(Code.INTERNAL, "internal error")


def overloaded(retry_after_s: float = 1) -> PlatformError:
    """Return the refusal of a request that a bounded queue has no room for."""
    return PlatformError(
        Code.RESOURCE_EXHAUSTED, "Model is overloaded", retry_after_s=retry_after_s
    )


def engine_unavailable() -> PlatformError:
    """Return the error for requests that an engine can't answer any more."""
    return PlatformError(Code.UNAVAILABLE, "The model's engine is not available. Retry later.")


def no_such_model(name: str, hint: str = "") -> PlatformError:
    """Return the refusal of a model's name, with what else would do."""
    message = f"The model '{name[:200]}' does not exist.{hint}"
    return PlatformError(Code.NOT_FOUND, message, param="model")
