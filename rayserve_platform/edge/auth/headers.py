"""Headers that only the platform and its edge may set, and that clients send in vain.

A `_` counts as `-`: some servers make the same variable of both.
"""

PREFIXES = ("x-rayserve-", "x-maas-", "x-ext-auth-", "x-forwarded-client-cert", "client-cert")


def is_internal(name: str) -> bool:
    """Say whether a header is the platform's own; the name is in lower case."""
    return name.replace("_", "-").startswith(PREFIXES)
