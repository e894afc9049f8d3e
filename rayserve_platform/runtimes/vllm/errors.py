"""vLLM's exceptions as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from vllm.entrypoints.serve.exception_handling.utils import sanitize_message
from vllm.exceptions import (
    MaxQueuedTokensError,
    QueueOverflowError,
    VLLMClientError,
    VLLMNotFoundError,
)
from vllm.v1.engine.exceptions import EngineDeadError

from rayserve_platform.core.errors import Code, PlatformError


@contextmanager
def map_exceptions() -> Iterator[None]:
    """Turn vLLM's exceptions into ours. What is not known passes, and is answered as internal."""
    try:
        yield
    except EngineDeadError:
        raise PlatformError(
            Code.UNAVAILABLE, "The model's engine is not available. Retry later."
        ) from None
    except (QueueOverflowError, MaxQueuedTokensError):
        raise PlatformError(
            Code.RESOURCE_EXHAUSTED, "Model is overloaded", retry_after_s=1
        ) from None
    except VLLMNotFoundError as error:
        raise PlatformError(Code.NOT_FOUND, sanitize_message(str(error))) from None
    except (VLLMClientError, ValueError) as error:
        raise PlatformError(Code.INVALID_ARGUMENT, sanitize_message(str(error))) from None
