"""Headers that are not for clients to send.

The TLS edge takes them off, and so does every ingress, which does not rely on what stands in
front of it. A `_` counts as `-` in a header's name: some servers make the same variable of both.
"""

CERTIFICATE = ("x-forwarded-client-cert", "client-cert")
"""How an edge hands on a client's certificate (Envoy; RFC 9440)."""
PREFIXES = (
    "x-rayserve-",
    "x-maas-",
    "x-ext-auth-",
    *CERTIFICATE,
    "serve-multiplexed-model-id",
    "x-serve-router-",
)
"""What only the platform or its edge may set, and what Serve passes between its own parts.

Source of the last two: `ray.serve._private.constants` of Ray 2.60, SERVE_MULTIPLEXED_MODEL_ID and
SERVE_INGRESS_ROUTER_HEADER_PREFIX.
"""

ORDERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled")
"""Orders to Serve's proxy, which has carried them out before an ingress sees them: another time
limit than the operator's, and work that goes on for a client that left. The TLS edge takes them
off."""


def folded(name: str) -> str:
    """Return what all spellings of a header's name have in common."""
    return name.lower().replace("_", "-")


def is_internal(name: str) -> bool:
    """Say whether a header is the platform's own, by its folded name."""
    return name.startswith(PREFIXES)
