"""What callers may use: requests, tokens and places, each principal and model on its own."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from rayserve_platform.settings.keys import Name, ProtocolName
from rayserve_platform.settings.model import Settings

MOST = 2**53
"""Redis counts in numbers of this size at most without loss."""
LONGEST_S = 366 * 86_400


def amount_and_window(rate: str) -> tuple[int, int]:
    """Return how many, and within how many seconds, of `100/minute` or `1000000 per 2 hours`.

    Raises:
        ValueError: for any other text.
    """
    from limits import parse_many

    try:
        found = parse_many(rate)
    except ValueError:
        found = []
    if len(found) != 1:
        raise ValueError(f"'{rate}' is no rate; write 100/minute or 1000000 per 2 hours")
    amount, window_s = found[0].amount, found[0].get_expiry()
    if not 1 <= amount <= MOST or not 1 <= window_s <= LONGEST_S:
        raise ValueError(f"'{rate}': from 1 to 2**53, within 1 second to 366 days")
    return amount, window_s


def _is_rate(rate: str) -> str:
    amount_and_window(rate)
    return rate


Rate = Annotated[str, AfterValidator(_is_rate)]


class Quota(Settings):
    """One quota: whom it is for, what it counts apart, and how much it allows."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._\-]+$")
    """Told to callers who are refused, and in the audit log."""
    per: tuple[Literal["principal", "model"], ...] = ("principal",)
    """What has a count of its own: `[principal]`, `[model]`, `[principal, model]` for each pair, or
    `[]`: all requests together."""
    principals: tuple[Name, ...] = ()
    """For these only; a request without a token is `anonymous`."""
    groups: tuple[Name, ...] = ()
    """For principals in one of these groups only."""
    models: tuple[Name, ...] = ()
    """For these models, or adapters, only. An adapter's requests count for its model."""
    protocols: tuple[ProtocolName, ...] = ()
    """For these protocols only."""
    requests: tuple[Rate, ...] = ()
    """Requests within a sliding window, e.g. `[60/minute, 1000/day]`."""
    tokens: tuple[Rate, ...] = ()
    """Tokens of prompts and answers within a sliding window, as the engine counts them. A request
    may begin while there are any left, and is then answered whole."""
    concurrent: int | None = Field(default=None, ge=1)
    """Requests at a time, in one ingress replica."""

    @model_validator(mode="after")
    def _counts_something(self) -> "Quota":
        if not (self.requests or self.tokens or self.concurrent):
            raise ValueError("give at least one of requests, tokens, concurrent")
        if len(set(self.per)) != len(self.per):
            raise ValueError("per: names one thing twice")
        return self


class Shared(Settings):
    """A Redis or Valkey server where all ingress replicas count together; needs the extra `redis`.

    Sliding windows of requests and tokens are shared; `concurrent` is each replica's own.
    """

    url: str
    """`redis://host:6379/0`, or `rediss://` for TLS; without a password."""
    password_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable with the password."""
    ca_file: str | None = None
    """Authorities that the server's certificate is checked with, in place of the system's."""
    timeout_s: float = Field(default=0.25, gt=0, le=5)
    """How long an answer is waited for."""
    unreachable: Literal["count_here", "refuse"] = "count_here"
    """What happens while it does not answer: each replica counts by itself, so that limits go on
    holding for each, or requests are answered 503."""

    @model_validator(mode="after")
    def _without_secrets(self) -> "Shared":
        parts = urlsplit(self.url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("url: must be redis://host[:port][/db] or rediss://…")
        if parts.password is not None:
            raise ValueError("url: has a password in it; name its variable in 'password_env'")
        return self


class Quotas(Settings):
    """All quotas of an ingress.

    Of quotas with the same `per` the first that fits a request counts, so that a group's own goes
    before everybody's; those with another `per` count besides.
    """

    rules: tuple[Quota, ...] = ()
    shared: Shared | None = None
    """Without it every ingress replica counts by itself."""
    headers: bool = True
    """Tell callers what they have left, in `x-ratelimit-*` as OpenAI does."""

    @model_validator(mode="after")
    def _named_once(self) -> "Quotas":
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"rules: '{name}' stands twice; their counts would be one")
        return self
