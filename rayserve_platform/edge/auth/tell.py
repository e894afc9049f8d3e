"""The last phase: telling others of a decision. It never changes it, and nobody waits for it."""

import asyncio
import logging

from rayserve_platform.edge.auth.calls import Caller
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault
from rayserve_platform.edge.auth.rule import Compiled, by_priority
from rayserve_platform.edge.auth.sources import Sources
from rayserve_platform.edge.auth.verdict import Unavailable
from rayserve_platform.settings.auth.policy import Policy

log = logging.getLogger("rayserve.auth")

PHASE = "callbacks"
MOST = 256
"""Decisions that are being told at a time; the log has what is not told for being too much."""


class Callbacks:
    """All callbacks of a policy."""

    def __init__(self, policy: Policy, sources: Sources) -> None:
        self._groups = by_priority(
            Compiled(
                name,
                rule,
                policy.patterns,
                PHASE,
                Caller(rule.http, sources.authorities, sources.secret, f"{PHASE}.{name}"),
            )
            for name, rule in policy.callbacks.items()
        )
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, document: Document) -> None:
        """Begin to tell."""
        if not self._groups:
            return
        if len(self._telling) >= MOST:
            log.warning("a decision is not told: %d others still are being", MOST)
            return
        task = asyncio.create_task(self._tell(document))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, document: Document) -> None:
        for group in self._groups:
            await asyncio.gather(*(self._one(rule, document) for rule in group))

    async def _one(self, rule: Compiled[Caller], document: Document) -> None:
        try:
            if rule.applies(document):
                await rule.run.send(document, is_read=False)
        except (Unavailable, EvaluationFault) as failure:
            log.warning("%s: %s", rule.where, failure)

    async def stop(self) -> None:
        """End what is being told."""
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
