"""Admission: what one ingress replica takes on before it says no."""

from collections.abc import Iterator
from contextlib import contextmanager

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.settings.app import Limits


class Admission:
    """Counts the requests in progress and refuses at once when there are too many.

    Refusing at the edge, before a body is read, keeps overload cheap and answers it in the
    protocol's own shape; Serve's own backpressure stands behind it for the runtime's queue.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_concurrent_requests
        self._retry_after_s = limits.retry_after_s
        self.running = 0

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Hold one place for the length of a request.

        Raises:
            PlatformError: RESOURCE_EXHAUSTED when every place is taken.
        """
        if self.running >= self._most:
            raise PlatformError(
                Code.RESOURCE_EXHAUSTED,
                f"The server is overloaded: {self._most} requests are in progress. Retry later.",
                retry_after_s=self._retry_after_s,
            )
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
