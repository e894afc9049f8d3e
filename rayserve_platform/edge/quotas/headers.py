"""What is left, as OpenAI tells it.

Source: platform.openai.com/docs/guides/rate-limits, "Rate limits in headers":
`x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests`, and the same for tokens; the
reset is a span like `1s` or `6m0s`.
"""

from collections.abc import Iterable

from rayserve_platform.edge.quotas.counts import Window

Seen = tuple[int, Window]
"""A limit and its window."""


def told(kind: str, seen: Iterable[Seen]) -> list[tuple[str, str]]:
    """Return the headers of one kind (`requests`, `tokens`): those of the limit nearest its end."""
    all_seen = list(seen)
    if not all_seen:
        return []
    limit, window = min(all_seen, key=lambda one: one[1].remaining(one[0]) / one[0])
    return [
        (f"x-ratelimit-limit-{kind}", str(limit)),
        (f"x-ratelimit-remaining-{kind}", str(window.remaining(limit))),
        (f"x-ratelimit-reset-{kind}", span(window.reset_s())),
    ]


def span(seconds: float) -> str:
    """Write a span as Go does: `0s`, `120ms`, `59.5s`, `6m0s`, `1h0m0s`."""
    ms = max(0, round(seconds * 1000))
    if ms == 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
