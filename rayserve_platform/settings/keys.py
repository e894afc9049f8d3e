"""What a file of API keys says. It is written by `rayserve keys` and holds no key, only digests."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from rayserve_platform.settings.model import Settings

KeyId = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9]{12}\z")]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"\A[^\x00-\x1f\x7f]*\z")
]
"""Of a principal, group or model: it goes into logs and headers."""
ProtocolName = Literal["openai", "caikit", "tgis", "kserve"]
State = Literal["active", "not yet", "expired", "disabled"]


KEYS_ENTRY = "keys.json"
PEPPER_ENTRY = "pepper"
"""The entries of the two Secrets; mounted, they are the files that a server is told of."""


def pepper_secret(name: str) -> str:
    """Return the name of the Secret with the pepper of the keys in another one."""
    return f"{name}-pepper"


class ApiKey(Settings):
    """One API key, without its secret."""

    id: KeyId
    digest: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
    """HMAC-SHA256 of id, NUL and secret under the pepper, in hexadecimal."""
    principal: Name
    """Who calls with this key; of one principal any number of keys may be active."""
    groups: tuple[Name, ...] = ()
    models: tuple[Name, ...] | None = Field(default=None, min_length=1)
    """Models and adapters it may call, by their own ids. Null: every one."""
    protocols: tuple[ProtocolName, ...] | None = Field(default=None, min_length=1)
    """Wire APIs it may call. Null: every one."""
    load: bool = False
    """Whether it may also load and unload these models, where clients may do that."""
    created: AwareDatetime
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    disabled: bool = False
    note: str = Field(default="", max_length=256)
    """For people."""

    @model_validator(mode="after")
    def _lives(self) -> "ApiKey":
        if self.expires and self.not_before and self.expires <= self.not_before:
            raise ValueError("expires: must be later than not_before")
        return self

    def state(self, now: datetime) -> State:
        """Say whether the key counts at a moment, and if not, why."""
        if self.disabled:
            return "disabled"
        if self.expires is not None and now >= self.expires:
            return "expired"
        if self.not_before is not None and now < self.not_before:
            return "not yet"
        return "active"


class KeyFile(Settings):
    """A whole file of keys."""

    version: Literal[1] = 1
    pepper: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{16}\z")] | None = None
    """Fingerprint of the pepper that the digests were made with; null while there is no key."""
    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "KeyFile":
        seen: set[str] = set()
        for key in self.keys:
            if key.id in seen:
                raise ValueError(f"keys: the id {key.id} stands twice")
            seen.add(key.id)
        if self.keys and self.pepper is None:
            raise ValueError("pepper: is missing, and there are keys")
        return self
