"""What an AuthConfig says of answers: what goes on, what goes back, and who is told.

Source of all names: Authorino's AuthConfig, `authorino.kuadrant.io/v1beta3`.
"""

from typing import ClassVar

from pydantic import Field, model_validator

from rayserve_platform.settings.auth.rules import HttpCall, Rule
from rayserve_platform.settings.auth.values import Value, Vocabulary


class Json(Vocabulary):
    """A JSON object."""

    properties: dict[str, Value]


class Success(Rule):
    """A header or metadata entry for the engine's side."""

    refused: ClassVar[dict[str, str]] = {
        "wristband": "the engine trusts its ingress and checks no token",
        "cache": "nothing is asked for it",
    }
    plain: Value | None = None
    json_: Json | None = Field(default=None, alias="json")
    key: str | None = Field(default=None, min_length=1)
    """The name under which it goes out; the rule's own if nothing is said."""

    @model_validator(mode="after")
    def _one(self) -> "Success":
        if (self.plain is None) == (self.json_ is None):
            raise ValueError("give one of plain, json")
        return self


class Successes(Vocabulary):
    """What is added to a request that may pass."""

    headers: dict[str, Success] = Field(default_factory=dict)
    dynamicMetadata: dict[str, Success] = Field(default_factory=dict)  # noqa: N815  # Authorino's


class DenyWith(Vocabulary):
    """How a refusal looks. Over gRPC only `message` and `headers` do."""

    code: int | None = Field(default=None, ge=300, le=599)
    message: Value | None = None
    headers: dict[str, Value] = Field(default_factory=dict)
    """In place of the challenges."""
    body: Value | None = None


class Response(Vocabulary):
    """What goes on, and what goes back."""

    success: Successes = Successes()
    unauthenticated: DenyWith = DenyWith()
    unauthorized: DenyWith = DenyWith()


class Callback(Rule):
    """A request after the decision, whatever it was."""

    refused: ClassVar[dict[str, str]] = {"cache": "every decision is told"}
    http: HttpCall
