"""A refusal because a share is used up, with what the caller may know of it."""

from collections.abc import Iterable

from rayserve_platform.core.errors import Code, Refusal


class QuotaExceeded(Refusal):
    """Refuses a request.

    Args:
        rule: the quota's name and what of it is used up, for the audit log.
        headers: `x-ratelimit-*` for the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        rule: str,
        retry_after_s: float,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(
            Code.RESOURCE_EXHAUSTED,
            message,
            rule=rule,
            headers=headers,
            retry_after_s=retry_after_s,
        )
