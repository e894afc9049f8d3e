"""API keys as the decision sees them: a token in, a key or nothing out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key that is valid now: neither expired, nor disabled, nor for later.

    Args:
        id: of the key; may be logged.
        principal: whose it is.
        groups: of the principal, as of when the key was made.
        models: that it may call, by id or adapter name; None: all.
        protocols: that it may be used with (`openai`, `caikit`, …); None: all.
        load: whether it may load and unload the models that it may call.
        identity: what `auth.identity` says besides, for conditions.
    """

    id: str
    principal: str
    groups: tuple[str, ...] = ()
    models: frozenset[str] | None = None
    protocols: frozenset[str] | None = None
    load: bool = False
    identity: Mapping[str, Any] = field(default_factory=dict)


class KeyStore(Protocol):
    """Where keys are kept. Looked up on every request: must not block, nor leave timing behind."""

    def find(self, token: str) -> Key | None:
        """Return the key that a token is, or None for any other text.

        Raises:
            Unavailable: while no set of keys could be read at all, for what may be one.
        """
        ...

    async def start(self) -> None:
        """Read the keys, and from then on keep up with changes."""
        ...

    async def stop(self) -> None:
        """End what `start` began."""
        ...
