"""What crosses a Serve handle besides the vocabulary: HTTP of native servers, errors as values.

Errors travel as values because Serve prints a traceback for every exception that leaves a
deployment's method, in the replica and again in the caller.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from rayserve_platform.core.errors import Code, PlatformError, internal_error

log = logging.getLogger("rayserve.serving")

Answer = TypeVar("Answer")
Item = TypeVar("Item")
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """An HTTP request with its body, for a runtime's own server."""

    method: str
    path: str
    query_string: bytes
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPart:
    """Part of the answer: the first has a status, the last has `more` False.

    Args:
        usage: prompt and generated tokens since the last part, where the server tells.
    """

    status: int | None = None
    headers: Headers = ()
    body: bytes = b""
    more: bool = True
    usage: tuple[int, int] | None = None


async def as_value(work: Awaitable[Answer]) -> Answer | PlatformError:
    """Await `work` and return its error instead of raising it."""
    try:
        return await work
    except PlatformError as error:
        return error
    except Exception:
        log.exception("a request failed in the runtime")
        return internal_error()


async def with_values(
    items: AsyncGenerator[Item, None],
) -> AsyncGenerator[Item | PlatformError, None]:
    """Yield `items`, and the error that ends them instead of raising it."""
    try:
        async with aclosing(items):
            async for item in items:
                yield item
    except PlatformError as error:
        yield error
    except Exception:
        log.exception("a request failed in the runtime")
        yield internal_error()


def or_raise(value: Answer | PlatformError) -> Answer:
    """Raise an error that came as a value."""
    if isinstance(value, PlatformError):
        raise value
    return value


@contextmanager
def map_exceptions() -> Iterator[None]:
    """Turn what Serve raises on a handle into our errors; Ray's texts never reach a caller."""
    try:
        yield
    except BackPressureError as error:
        raise PlatformError(
            Code.RESOURCE_EXHAUSTED,
            "Model is overloaded: its queue is full. Retry later.",
            retry_after_s=error.retry_after_s or 1.0,
        ) from None
    except (DeploymentUnavailableError, ReplicaUnavailableError, RayActorError) as error:
        log.warning("a replica or deployment is gone: %s", type(error).__name__)
        raise PlatformError(
            Code.UNAVAILABLE,
            "The model is not available. Retry later.",
            retry_after_s=1.0,
        ) from None
    except TaskCancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from None
        # The replica ended the request, not its client.
        raise PlatformError(
            Code.UNAVAILABLE, "The model is not available. Retry later.", retry_after_s=1.0
        ) from None
    except RayTaskError:
        log.exception("a call to the runtime failed")
        raise internal_error() from None
