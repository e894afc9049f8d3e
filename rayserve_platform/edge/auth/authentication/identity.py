"""What every way to be known has in common."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.keystore import Key

About = Callable[[str, Document], str]
"""What a verdict is kept under: a token, and what the rule's `cache.key` adds to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Somebody an authority knows.

    Args:
        identity: what it says of them: `auth.identity`.
        key: where the token is one of the platform's own keys, with what it may be used for.
        user: what the Kubernetes API is told of them, where it was the one that knew them.
    """

    identity: Mapping[str, Any]
    key: Key | None = None
    user: Mapping[str, Any] | None = None


class Method(Protocol):
    """One way to be known."""

    needs_token: bool
    """Whether a request without a token can't be known this way."""
    is_local: bool
    """Whether it asks nobody about the token, so that it is tried before those that do."""
    waits: bool
    """Whether it may wait for somebody at all."""

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return who it is.

        Raises:
            Rejected: when the credentials are not theirs.
            Unavailable: when that can't be said now.
            EvaluationFault: when an expression of the rule has no value.
        """
        ...

    async def start(self) -> None:
        """Get ready: read keys, follow Secrets. What fails is tried again later."""
        ...

    async def stop(self) -> None:
        """End what `start` began."""
        ...


class Idle:
    """A method with nothing to start."""

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""
