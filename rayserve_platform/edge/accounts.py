"""Who used what: what both transports do about quotas and the audit log, in one object."""

from collections.abc import Iterator
from contextlib import contextmanager

from rayserve_platform.core.usage import METER
from rayserve_platform.edge.audit import AuditLog
from rayserve_platform.edge.observe import Record
from rayserve_platform.edge.quotas.counts import LocalCounts
from rayserve_platform.edge.quotas.meter import RequestMeter
from rayserve_platform.edge.quotas.quotas import Quotas
from rayserve_platform.edge.quotas.shared import open_shared
from rayserve_platform.settings.app import Ingress
from rayserve_platform.settings.limits import Quotas as Settings


class Accounts:
    """The accounts of an ingress replica.

    Args:
        quotas: None where nothing is limited.
        audit: None where nothing is written down.
    """

    def __init__(self, quotas: Quotas | None = None, audit: AuditLog | None = None) -> None:
        self._quotas = quotas
        self._audit = audit

    @contextmanager
    def metered(self, record: Record) -> Iterator[RequestMeter | None]:
        """Count what a request uses while it is being answered."""
        if self._quotas is None and self._audit is None:
            yield None
            return
        meter = RequestMeter(record, self._quotas)
        METER.set(meter)
        try:
            yield meter
        finally:
            meter.renew()
            # Not by a token: a stream that is left may be closed by another task.
            METER.set(None)

    def settle(self, record: Record, *, duration_s: float) -> None:
        """Write down a request that has been answered."""
        if self._audit is not None:
            self._audit.write(record, duration_s=duration_s)

    async def close(self) -> None:
        """Let go of files and connections."""
        if self._quotas is not None:
            await self._quotas.close()
        if self._audit is not None:
            self._audit.close()


def open_accounts(settings: Ingress) -> Accounts:
    """Open what an ingress's settings ask for."""
    quotas = _open_quotas(settings.quotas) if settings.quotas.rules else None
    wanted = settings.audit.enabled
    if wanted is None:
        wanted = quotas is not None or settings.auth is not None
    return Accounts(quotas, AuditLog(settings.audit) if wanted else None)


def _open_quotas(settings: Settings) -> Quotas:
    """Open quotas with their counts: the process's own, or those of a server."""
    if settings.shared is None:
        return Quotas(settings, LocalCounts())
    return Quotas(settings, open_shared(settings.shared))
