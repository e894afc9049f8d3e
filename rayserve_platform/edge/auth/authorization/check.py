"""What every kind of authorization has in common, and the simplest one."""

from typing import Any, Protocol

from rayserve_platform.edge.auth.conditions import Conditions
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.verdict import Rejected


class Check(Protocol):
    """One condition on a request."""

    waits: bool
    """Whether it may wait for somebody."""
    remembers: bool
    """Whether it keeps verdicts itself, so that the rule's `cache` is its own matter."""

    @property
    def grants_loading(self) -> bool:
        """Whether whoever passes it when a model is to be loaded has a right to just that."""
        ...

    async def check(self, document: Document) -> Any:
        """Return what `auth.authorization` shall say of it.

        Raises:
            Rejected: when it does not hold.
            Unavailable: when that can't be said now.
            EvaluationFault: when an expression has no value.
        """
        ...

    async def stop(self) -> None:
        """End what is being asked."""
        ...


class PatternCheck:
    """All patterns must hold."""

    waits = False
    remembers = False
    grants_loading = False

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    async def check(self, document: Document) -> Any:
        """Evaluate the patterns."""
        if not self._conditions.hold(document):
            raise Rejected("the patterns don't hold")
        return True

    async def stop(self) -> None:
        """Do nothing."""
