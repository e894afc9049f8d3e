"""What both edges do with a guard: let a request in, and answer the catalog's questions about it.

Nothing is answered before a decision allows it. Where a request means a model, the catalog asks
about that one; a request that means none is answered to whoever may call at least one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from rayserve_platform.core.errors import Code, PlatformError, Refusal
from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.authorize import forbidden
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.guard import Guard, Known
from rayserve_platform.edge.observe import Record

Targets = Callable[[], Awaitable[Sequence[Target]]]


@contextmanager
def entering(record: Record) -> Iterator[None]:
    """Note on a request's record why it was not let in."""
    try:
        yield
    except PlatformError as error:
        record.refused_by = error.rule if isinstance(error, Refusal) else "credentials"
        raise


def note(record: Record, error: Refusal) -> None:
    """Note on a request's record what refused it, whom, and which model."""
    record.refused_by = error.rule
    if isinstance(error, Denial):
        record.principal = record.principal or error.principal
        record.model = record.model or error.model


class Gate:
    """Lets requests in.

    Args:
        targets: returns all that can be called; asked only for requests that mean no model.
    """

    def __init__(self, guard: Guard, targets: Targets) -> None:
        self.guard = guard
        self._targets = targets

    async def enter(self, credentials: Credentials, request: Request) -> "Session":
        """Return what a request may do.

        Raises:
            Denial: when nobody knows who asks, or that can't be found out now.
            PlatformError: INVALID_ARGUMENT when there are several credentials in one place.
        """
        return Session(self.guard, await self._known(credentials, request), self._targets)

    async def renew(self, session: "Session", credentials: Credentials, request: Request) -> None:
        """Find out anew who asks, and forget what has been decided; raises as `enter`."""
        session.renew(await self._known(credentials, request))

    async def _known(self, credentials: Credentials, request: Request) -> Known:
        document = Document(request)
        try:
            return await self.guard.identify(credentials, document)
        except Denial:
            self.guard.tell(document)
            raise


class Session:
    """The `Access` of one request whose caller is known. Each target is decided upon once.

    Args:
        principal: who asks; once a target has been allowed, with its headers for the engine.
    """

    def __init__(self, guard: Guard, known: Known, targets: Targets) -> None:
        self._guard = guard
        self._targets = targets
        self.renew(known)

    def renew(self, known: Known) -> None:
        """Begin anew, as at the next message of a stream."""
        self._known = known
        self._decided: dict[Target, Principal | Denial] = {}
        self.principal = known.principal
        self.is_settled = known.free
        self._denial: Denial | None = None
        self._hidden: Denial | None = None

    async def require(self, target: Target) -> None:
        """Raise unless the target may be called."""
        found = await self._decide(target)
        if isinstance(found, Denial):
            raise found
        self.principal, self.is_settled = found, True

    async def allowed(self, targets: Sequence[Target], *, is_meant: bool = True) -> list[Target]:
        """Return the targets that may be called."""
        if len(targets) == 1:
            found = [await self._decide(targets[0])]
            if is_meant and isinstance(found[0], Denial):
                # It is answered as if it were not there; the audit log knows better.
                self._hidden = found[0]
        else:
            found = await asyncio.gather(*(self._decide(target) for target in targets))
        permitted = [
            (target, principal)
            for target, principal in zip(targets, found, strict=True)
            if not isinstance(principal, Denial)
        ]
        if permitted:
            self.principal, self.is_settled = permitted[0][1], True
        return [target for target, _ in permitted]

    async def _decide(self, target: Target) -> Principal | Denial:
        found = self._decided.get(target)
        if found is None:
            try:
                found = await self._guard.permit(self._known, target)
            except Denial as denial:
                if denial.code is Code.UNAVAILABLE:
                    raise
                self._denial = found = denial
            self._decided[target] = found
        return found

    def refusal(self) -> PlatformError:
        """Return the last refusal: all targets were refused."""
        return self._denial or forbidden("", "there is nothing that may be called")

    async def settle(self) -> None:
        """Decide upon a request that has been answered without asking for a model.

        Raises:
            Denial: when its caller may call nothing here.
            PlatformError: UNAVAILABLE when what can be called can't be found out.
        """
        if not self.is_settled:
            targets = await self._targets()
            if targets and not await self.allowed(targets):
                raise self.refusal()
            self.is_settled = True

    def finish(self, record: Record) -> None:
        """Tell of the decision, now that the request has been answered."""
        record.principal = self.principal
        if self._hidden is not None and not record.refused_by:
            note(record, self._hidden)
        self._guard.tell(self._known.document)


class Unlimited:
    """The `Access` of a request that is answered to everybody."""

    principal: Principal | None = None

    async def require(self, target: Target) -> None:
        """Do nothing."""

    async def allowed(self, targets: Sequence[Target], *, is_meant: bool = True) -> list[Target]:
        """Return them all."""
        del is_meant
        return list(targets)

    def refusal(self) -> PlatformError:
        """Return what is never asked for."""
        return forbidden("", "")
