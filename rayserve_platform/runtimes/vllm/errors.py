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

from rayserve_platform.core.errors import Code, PlatformError, engine_unavailable, overloaded


@contextmanager
def map_exceptions() -> Iterator[None]:
    """Turn vLLM's exceptions into ours. What is not known passes, and is answered as internal."""
    try:
        yield
    except EngineDeadError:
        raise engine_unavailable() from None
    except (QueueOverflowError, MaxQueuedTokensError):
        raise overloaded() from None
    except VLLMNotFoundError as error:
        raise PlatformError(Code.NOT_FOUND, sanitize_message(str(error))) from None
    except (VLLMClientError, ValueError) as error:
        raise PlatformError(Code.INVALID_ARGUMENT, sanitize_message(str(error))) from None
