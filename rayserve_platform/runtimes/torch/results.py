"""What a step has brought about, on its way to the event loop, and the errors a loop answers."""

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Chunk
from rayserve_platform.runtimes.torch.job import Item, Job


def unavailable() -> PlatformError:
    """Return the error for requests that the loop can't answer any more."""
    return PlatformError(Code.UNAVAILABLE, "The model's engine is not available. Retry later.")


def overloaded() -> PlatformError:
    """Return the error for requests that have no room."""
    return PlatformError(Code.RESOURCE_EXHAUSTED, "Model is overloaded", retry_after_s=1)


class Results:
    """Collects the results of one step, in order."""

    def __init__(self) -> None:
        self.items: list[tuple[Job, Item]] = []

    def add(self, job: Job, chunk: Chunk) -> None:
        """Add a piece of an answer."""
        self.items.append((job, chunk))

    def end(self, job: Job, error: Exception | None = None) -> None:
        """Add a request's end."""
        job.is_over = True
        self.items.append((job, error))
