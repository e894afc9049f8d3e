"""Shapes of HTTP requests that no client needs, since two servers may read them as two requests.

The TLS edge refuses them, and so does every ingress, which does not rely on what stands in front
of it. `%2f` in a path is none: the OpenAI client writes names of models with slashes so. Routes are
found by the decoded path, and what may be called is decided by the model that was found.
"""

import re

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.runtime import Scope

ONCE = (b"host", b"authorization", b"content-length", b"content-type", b"transfer-encoding")
"""Headers of which two parties may each believe another one."""

ODD_PATH = r"//|/\.{1,2}(/|$)|[;\\\x00-\x1f\x7f]"
"""In a decoded path: what some server takes for another path, or for its end."""
ODD_ESCAPE = r"%25[0-9a-fA-F]{2}|%([^0-9a-fA-F]|.[^0-9a-fA-F]|.?$)"
"""In a path as it was sent: an escaped escape, and what is no escape at all."""

_ODD_PATH = re.compile(ODD_PATH)
_ODD_ESCAPE = re.compile(ODD_ESCAPE.encode())


def check_headers(scope: Scope) -> None:
    """Refuse a request with headers of two meanings, before anything reads one of them.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    names = [name for name, _ in scope["headers"]]
    for name in ONCE:
        if names.count(name) > 1:
            text = f"The request has several {name.decode()} headers; send one."
            raise PlatformError(Code.INVALID_ARGUMENT, text)
    if b"content-length" in names and b"transfer-encoding" in names:
        text = "The request has both 'content-length' and 'transfer-encoding'; send one."
        raise PlatformError(Code.INVALID_ARGUMENT, text)


def check_path(scope: Scope) -> None:
    """Refuse an odd path as every other that no route has.

    Raises:
        PlatformError: NOT_FOUND.
    """
    if _ODD_PATH.search(scope["path"]) or _ODD_ESCAPE.search(scope.get("raw_path") or b""):
        text = "Unknown request URL: its path holds '//', '.', '..', ';', '\\' or an odd escape."
        raise PlatformError(Code.NOT_FOUND, text)
