"""What every engine that generates asks of prompts, and how much may be written behind them."""

from collections.abc import Sequence

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Stopping, StopReason


def bad(param: str, problem: str) -> PlatformError:
    """Return the error for a value."""
    return PlatformError(Code.INVALID_ARGUMENT, f"'{param}' {problem}.", param=param)


def no_chat_template() -> PlatformError:
    """Return the error for a conversation with a model that takes texts only."""
    return PlatformError(
        Code.INVALID_ARGUMENT,
        "This model has no chat template, so it takes no conversations; send a text.",
        param="messages",
    )


def byte_size(text: str) -> int:
    """Return how many bytes a text has.

    Raises:
        PlatformError: INVALID_ARGUMENT for half of a surrogate pair, which has none.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            "The text holds half of a surrogate pair, which is no character.",
            param="prompt",
        ) from None


def checked(ids: Sequence[int], vocabulary: int) -> list[int]:
    """Return a caller's token ids.

    Raises:
        PlatformError: INVALID_ARGUMENT for one that the model does not have.
    """
    for token_id in ids:
        if not 0 <= token_id < vocabulary:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"Token id {token_id} is not in this model's vocabulary of {vocabulary}.",
                param="prompt",
            )
    return list(ids)


def truncated(ids: list[int], count: int, *, keeps_first: bool) -> list[int]:
    """Keep the last tokens, and in front of them a beginning-of-text token that was added."""
    if len(ids) <= count:
        return ids
    if keeps_first and count > 0:
        return [ids[0], *ids[len(ids) - count + 1 :]]
    return ids[len(ids) - count :]


def check_lengths(stopping: Stopping) -> None:
    """Refuse numbers of new tokens that mean nothing.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field.
    """
    most, least = stopping.max_new_tokens, stopping.min_new_tokens
    if most is not None and most < 1:
        raise bad("max_new_tokens", f"must be >= 1, got {most}")
    if least < 0 or (most is not None and least > most):
        raise bad("min_new_tokens", f"must be >= 0 and <= max_new_tokens, got {least}")


def limit_of(asked: int | None, room: int) -> tuple[int, StopReason]:
    """Return the most new tokens of an answer, and why there can't be more."""
    if asked is None or asked > room:
        return room, StopReason.TOKEN_LIMIT
    return asked, StopReason.MAX_TOKENS
