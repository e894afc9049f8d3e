"""Headers that only the platform and its edge may set, and that clients send in vain.

A `_` counts as `-`: some servers make the same variable of both.
"""

PREFIXES = ("x-rayserve-", "x-maas-", "x-ext-auth-", "x-forwarded-client-cert", "client-cert")


def folded(name: str) -> str:
    """Return what all spellings of a header's name have in common."""
    return name.lower().replace("_", "-")


def is_internal(name: str) -> bool:
    """Say whether a header is the platform's own, by its folded name."""
    return name.startswith(PREFIXES)
