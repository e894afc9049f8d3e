"""One error type for the whole platform, free of any transport.

A `PlatformError` says what went wrong in one of nine codes; each transport has one total table from
code to status (`edge.http`, `edge.rpc`). The message is meant for the caller: it names the field,
the limit and what to do, and never carries a path, pid, address or the text of a foreign exception.
"""

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


class InputTooLong(PlatformError):
    """Texts with more tokens than the model takes.

    Args:
        limit: the model's maximum in tokens, special tokens included.
        field: the list of the request that they are in: `inputs`, `queries` or `documents`.
        indexes: their places in that list, the longest text first.
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


def _rebuild_too_long(limit: int, field: str, indexes: tuple[int, ...]) -> InputTooLong:
    return InputTooLong(limit=limit, field=field, indexes=indexes)


def _rebuild(
    code: Code, message: str, param: str | None, retry_after_s: float | None
) -> PlatformError:
    return PlatformError(code, message, param=param, retry_after_s=retry_after_s)


def internal_error() -> PlatformError:
    """What a caller reads when the cause is unknown: the cause goes to the log, with the id."""
    return PlatformError(Code.INTERNAL, "internal error")
