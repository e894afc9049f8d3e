"""What one request uses of its caller's share: asked before the engine is, told as it works."""

from contextvars import ContextVar
from typing import Protocol

from rayserve_platform.core.principal import Target

USAGE_KEY = "rayserve.usage"
"""In an ASGI message of a runtime's own server: (prompt tokens, generated tokens) since the last.

ASGI lets messages have keys of their own; this one ends at the meter.
"""


TELL_USAGE = (b"x-rayserve-tell-usage", b"1")
"""A header for a runtime's own server: tell of tokens as they come, in messages of no other use
before the answer's head. Clients can't send it."""


class Meter(Protocol):
    """Counts one request."""

    @property
    def is_charged(self) -> bool:
        """Whether a budget pays for the tokens of what has been admitted.

        Then those of an answer that is left before its end must be known.
        """
        ...

    async def admit(self, target: Target) -> None:
        """Take a place for the request; a second time for the same target changes nothing.

        Raises:
            PlatformError: RESOURCE_EXHAUSTED when its caller has used up a share.
        """
        ...

    def spend(self, *, prompt: int, generated: int) -> None:
        """Count tokens that the engine has read or written."""
        ...


METER: ContextVar[Meter | None] = ContextVar("rayserve_meter", default=None)
"""Of the request that is being answered. The edge sets it; the catalog asks it."""


async def admit(target: Target) -> None:
    """Take a place before the engine is asked, for answers that begin earlier than that.

    Raises:
        PlatformError: as `Meter.admit`.
    """
    meter = METER.get()
    if meter is not None:
        await meter.admit(target)
