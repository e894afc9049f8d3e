"""The form of a key, `rsp_<id>_<secret>`, and what is kept of it: never the secret.

The secret is drawn, not chosen, and has 256 bits: no guess finds it, so one HMAC is enough where a
password would need a slow hash. The pepper makes a stolen file of digests useless by itself, even
for telling whether a key that was found elsewhere is in it.
"""

import hmac
import re
import secrets
import string

PREFIX = "rsp"
ID_ALPHABET = string.ascii_lowercase + string.digits
ID_CHARS = 12
SECRET_ALPHABET = string.ascii_letters + string.digits
"""No punctuation, so that a double click selects a key whole."""
SECRET_CHARS = 43
"""62 ** 43 > 2 ** 256."""
TOKEN = re.compile(rf"{PREFIX}_([a-z0-9]{{{ID_CHARS}}})_([A-Za-z0-9]{{{SECRET_CHARS}}})", re.ASCII)
MIN_PEPPER_BYTES = 32


def mint() -> tuple[str, str]:
    """Draw a new key; returns its id and its secret."""
    return (
        "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_CHARS)),
        "".join(secrets.choice(SECRET_ALPHABET) for _ in range(SECRET_CHARS)),
    )


def written(key_id: str, secret: str) -> str:
    """Return a key as its owner gets it."""
    return f"{PREFIX}_{key_id}_{secret}"


def parse(token: str) -> tuple[str, str] | None:
    """Return id and secret of what has the form of a key, else None."""
    found = TOKEN.fullmatch(token)
    return None if found is None else (found[1], found[2])


def digest(pepper: bytes, key_id: str, secret: str) -> bytes:
    """Return what is kept of a key.

    The NUL keeps an id and a secret apart, so that no other pair has the same digest.
    """
    return hmac.digest(pepper, b"%b\0%b" % (key_id.encode(), secret.encode()), "sha256")


def fingerprint(pepper: bytes) -> str:
    """Return what tells two peppers apart without telling them."""
    return hmac.digest(pepper, b"rayserve pepper", "sha256").hex()[:16]
