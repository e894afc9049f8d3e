"""What a step has brought about, on its way to the event loop, and the errors a loop answers."""

from rayserve_platform.core.messages import Chunk
from rayserve_platform.runtimes.torch.job import Item, Job


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
