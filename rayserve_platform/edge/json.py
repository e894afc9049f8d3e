"""Reading JSON whose keys decide who may have it done."""

import json
import re
from collections.abc import Sequence
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError

ESCAPED = re.compile(rb"\\u00[4567]")
"""How a letter of a key may be disguised."""


def check_once(body: bytes | bytearray | memoryview | str, keys: Sequence[str]) -> None:
    """Refuse a body in which one of `keys` stands twice in its outermost object.

    Of equal keys one reader takes the first and another the last, and what is authorised would not
    be what is served. It costs a search where no key seems to stand twice.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    raw = body.encode() if isinstance(body, str) else bytes(body)
    if not ESCAPED.search(raw) and all(raw.count(f'"{key}"'.encode()) < 2 for key in keys):
        return
    outermost: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = pairs  # the outermost object ends last

    try:
        json.loads(raw, object_pairs_hook=keep)
    except (ValueError, RecursionError):
        raise PlatformError(
            Code.INVALID_ARGUMENT, "The request body is not valid JSON.", param="body"
        ) from None
    names = [name for name, _ in outermost]
    for key in keys:
        if names.count(key) > 1:
            raise PlatformError(
                Code.INVALID_ARGUMENT, f"The request body has several '{key}'; send one.", param=key
            )
