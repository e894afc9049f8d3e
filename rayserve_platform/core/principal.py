"""Who asks, for which model, and whether they may: what the catalog has to know of access."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rayserve_platform.core.errors import PlatformError


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody whose credentials have been verified.

    Args:
        id: the name of the user, service account or key holder.
        rule: the authentication rule that knew the credentials; with `id` it is unique.
        groups: that the authority says `id` is in.
        claims: what the authority says of `id`: a token's claims, a user's attributes.
        key_id: the id of the API key, never the key.
        headers: for the engine, added to the request; callers can't send them themselves.
        metadata: for limits and logs: what the policy's `dynamicMetadata` says.
    """

    id: str
    rule: str = ""
    groups: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    key_id: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be called: a model under its own id, never the caller's text, and its adapter.

    Args:
        operation: `load` where the model is to be loaded or unloaded: a right of its own.
    """

    model: str
    adapter: str | None = None
    operation: Literal["call", "load"] = "call"


class Access(Protocol):
    """What one request may do."""

    @property
    def principal(self) -> Principal | None:
        """Who asks, where that is known."""
        ...

    async def require(self, target: Target) -> None:
        """Raise `PlatformError` unless the target may be called."""
        ...

    async def allowed(self, targets: Sequence[Target], *, is_meant: bool = True) -> list[Target]:
        """Return those of the targets that may be called; raises when an authority is down.

        Args:
            targets: models and adapters.
            is_meant: the request is for one of them; else it is only looked what there is for it.
        """
        ...

    def refusal(self) -> PlatformError:
        """Return the error for a caller that may call nothing here."""
        ...


ACCESS: ContextVar[Access | None] = ContextVar("rayserve_access", default=None)
"""What the request that is being answered may do. The edge sets it; a guarded catalog asks it.

It goes with the task, so that no protocol can forget to hand it on, and a catalog that is guarded
refuses everything where it is missing.
"""
