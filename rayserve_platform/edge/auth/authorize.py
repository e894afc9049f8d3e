"""The third phase: may they. All rules must let the request pass, for the model that is meant."""

import asyncio
from typing import Any

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.authorization.access_review import AccessCheck
from rayserve_platform.edge.auth.authorization.check import Check, PatternCheck
from rayserve_platform.edge.auth.authorization.rego import RegoCheck
from rayserve_platform.edge.auth.conditions import Conditions
from rayserve_platform.edge.auth.denial import Denial, unavailable
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault
from rayserve_platform.edge.auth.rule import CacheKey, Compiled, by_priority
from rayserve_platform.edge.auth.sources import Sources
from rayserve_platform.edge.auth.verdict import Rejected, Unavailable
from rayserve_platform.settings.auth.authorization import Authorization
from rayserve_platform.settings.auth.policy import Policy

PHASE = "authorization"
FORBIDDEN = "You are not allowed to do this."


class Permission:
    """All authorization rules of a policy; without any, whoever is known may call everything."""

    def __init__(self, policy: Policy, sources: Sources) -> None:
        rules = [
            Compiled(name, rule, policy.patterns, PHASE, _check(name, rule, policy, sources))
            for name, rule in policy.authorization.items()
        ]
        self._rules = rules
        self.waits = any(rule.run.waits for rule in rules)
        self._groups = by_priority(rules)

    async def check(self, document: Document) -> None:
        """Let a request pass that all rules allow.

        Raises:
            Denial: PERMISSION_DENIED when one refuses, or can't be evaluated; UNAVAILABLE when an
                authority could not say and no other rule refuses.
        """
        for group in self._groups:
            if len(group) == 1:
                denial = await self._one(group[0], document)
                denials = [denial]
            else:
                denials = await asyncio.gather(*(self._one(rule, document) for rule in group))
            found = [denial for denial in denials if denial is not None]
            for denial in sorted(found, key=lambda one: one.code is Code.UNAVAILABLE):
                raise denial

    def grants_loading(self, document: Document) -> bool:
        """Say whether a rule that was passed gave a right to load the model."""
        passed = document.authorization
        return any(rule.run.grants_loading and rule.name in passed for rule in self._rules)

    async def _one(self, rule: Compiled[Check], document: Document) -> Denial | None:
        try:
            if not rule.applies(document):
                document.tell(f"{rule.where}: does not apply")
                return None
            document.authorization[rule.name] = await _found(rule, document)
        except (Rejected, EvaluationFault) as failure:
            document.tell(f"{rule.where}: refused: {failure}")
            return forbidden(rule.where, str(failure))
        except Unavailable as failure:
            document.tell(f"{rule.where}: unavailable: {failure}")
            return unavailable(rule.where, str(failure))
        document.tell(f"{rule.where}: passed")
        return None

    async def stop(self) -> None:
        """End what is being asked."""
        await asyncio.gather(*(rule.run.stop() for rule in self._rules))


def forbidden(rule: str, reason: str) -> Denial:
    """Return a refusal of somebody who is known."""
    return Denial(Code.PERMISSION_DENIED, FORBIDDEN, rule=rule, reason=reason)


async def _found(rule: Compiled[Check], document: Document) -> Any:
    if rule.run.remembers:  # a second memory would make its verdicts twice as old
        return await rule.run.check(document)
    return await rule.remembered(document, lambda: rule.run.check(document))


def _check(name: str, rule: Authorization, policy: Policy, sources: Sources) -> Check:
    where = f"{PHASE}.{name}"
    if rule.patternMatching is not None:
        return PatternCheck(Conditions(rule.patternMatching.patterns, policy.patterns, where))
    if rule.opa is not None:
        return RegoCheck(rule.opa, sources.rego, where)
    assert rule.kubernetesSubjectAccessReview is not None
    review, key = rule.kubernetesSubjectAccessReview, CacheKey(rule.cache, where)
    return AccessCheck(review, sources.kubernetes, key, where)
