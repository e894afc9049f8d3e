"""The meter of one request: its share of the quotas, and the tokens that its record tells of."""

import asyncio

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.observe import Record
from rayserve_platform.edge.quotas.exceeded import QuotaExceeded
from rayserve_platform.edge.quotas.quotas import Quotas, Share


class RequestMeter:
    """Counts one request.

    Args:
        record: of the request; knows its principal by the time a model is asked.
        quotas: None where nothing is limited and only the record counts.
    """

    def __init__(self, record: Record, quotas: Quotas | None) -> None:
        self._record = record
        self._quotas = quotas
        self._shares: dict[Target, Share] = {}
        self._refusal: PlatformError | None = None
        self._asking = asyncio.Lock()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What is left, for the answer's head."""
        if self._refusal is not None:
            return []
        return next((share.headers for share in self._shares.values()), [])

    @property
    def is_charged(self) -> bool:
        """Whether a budget pays for the request's tokens."""
        return any(share.is_charged for share in self._shares.values())

    async def admit(self, target: Target) -> None:
        """Take a share; the parts of one request, which may come at once, take one together.

        Raises:
            QuotaExceeded: to all parts alike.
        """
        if self._quotas is None or target in self._shares:
            return
        async with self._asking:
            if self._refusal is not None:
                raise self._refusal
            if target in self._shares:
                return
            record = self._record
            try:
                share = await self._quotas.take(record.principal, target, record.protocol)
            except QuotaExceeded as refusal:
                self._refusal = refusal
                record.refused_by = refusal.rule
                raise
            self._shares[target] = share

    def spend(self, *, prompt: int, generated: int) -> None:
        """Count tokens for the record and against every budget of the request."""
        self._record.prompt_tokens += prompt
        self._record.generated_tokens += generated
        for share in self._shares.values():
            share.spend(prompt + generated)

    def renew(self) -> None:
        """Begin anew, for the next message of a stream of requests."""
        for share in self._shares.values():
            share.release()
        self._shares = {}
        self._refusal = None
