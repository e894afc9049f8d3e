"""A runtime for one request of a caller who may use an adapter, and perhaps not its model."""

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.principal import Access, Target
from rayserve_platform.core.runtime import Runtime
from rayserve_platform.core.wrapped import WrappedRuntime


class AdaptedRuntime(WrappedRuntime):
    """Asks whether the caller may use what a request means, where that is not the adapter.

    A verb that leaves the adapter out would be answered by the model itself. Whoever hands a
    request on to the runtime's own server names the adapter there.

    Args:
        target: what the request was resolved to: an adapter, which the caller may use.
    """

    def __init__(self, runtime: Runtime, access: Access, target: Target) -> None:
        super().__init__(runtime)
        self._access = access
        self._target = target

    async def _before(self, adapter: str | None) -> None:
        meant = Target(model=self._target.model, adapter=adapter)
        if meant != self._target and not await self._access.allowed([meant]):
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"'{self._target.adapter}' is an adapter and can't do this; only its model can.",
                param="model",
            )
