"""A refusal by the policy: what the client gets, and what only the log does."""

from collections.abc import Iterable

from rayserve_platform.core.errors import Code, Refusal
from rayserve_platform.core.principal import Principal

RETRY_AFTER_S = 1.0


class Denial(Refusal):
    """Refuses a request.

    Args:
        code: UNAUTHENTICATED, PERMISSION_DENIED, or UNAVAILABLE where an authority can't be asked.
        message: for the caller; says nothing of rules and authorities.
        rule: the rule that denied; for the log.
        reason: why; for the log.
        headers: for the response: the challenges, or what the policy's `denyWith` says.
        status: an HTTP status in place of the code's.
        body: of the HTTP response, in place of the protocol's own shape.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        rule: str = "",
        reason: str = "",
        headers: Iterable[tuple[str, str]] = (),
        status: int | None = None,
        body: str | None = None,
    ) -> None:
        retry_after_s = RETRY_AFTER_S if code is Code.UNAVAILABLE else None
        super().__init__(code, message, rule=rule, headers=headers, retry_after_s=retry_after_s)
        self.reason = reason
        self.status = status
        self.body = body
        self.principal: Principal | None = None
        """Who was refused, where that is known; for the audit log."""
        self.model = ""
        """The model that they were refused, or the adapter; for the audit log."""


def unavailable(rule: str, reason: str) -> Denial:
    """Return the refusal for an authority that is down, slow or answers nonsense."""
    return Denial(
        Code.UNAVAILABLE,
        "The authorization service is not available. Retry later.",
        rule=rule,
        reason=reason,
    )
