"""Whether a runtime can serve requests, as probes ask."""

import asyncio
import math
import time

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.runtime import Runtime

TIMEOUT_S = 5.0
GRACE_S = 30.0


class Health:
    """The health of one runtime.

    A full queue is not ill health, nor is one that keeps this question waiting while answers still
    came a moment ago: a probe must not end an ingress for being busy.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._well_at = -math.inf

    async def check(self) -> None:
        """Raise `PlatformError` when the runtime can serve no request."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._runtime.check_health()
        except PlatformError as error:
            if error.code is not Code.RESOURCE_EXHAUSTED:
                raise
        except TimeoutError:
            if time.monotonic() - self._well_at > GRACE_S:
                raise PlatformError(Code.UNAVAILABLE, "The engine does not answer.") from None
        else:
            self._well_at = time.monotonic()
