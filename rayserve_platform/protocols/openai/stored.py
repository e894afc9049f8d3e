"""Whose a stored response is: its id says so.

vLLM's server keeps a response under an id that the request may choose (`request_id`), for whoever
knows it. Where tokens are checked the ingress chooses it: a random part, and a digest of that and
the caller. So every replica knows whose it is, and nobody can give another's response an id of
their own.
"""

import hashlib
import hmac
import secrets
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.principal import Principal
from rayserve_platform.protocols.openai.routes import Route

CREATE = "POST /v1/responses"
PREFIX = "resp_"
DRAWN = 32
"""Characters of the random part: 128 bits."""


def bound(
    route: Route, content: dict[str, Any], response_id: str | None, principal: Principal
) -> dict[str, Any]:
    """Return what a body needs besides, so that the response is its caller's.

    Raises:
        PlatformError: NOT_FOUND when the request means the response of somebody else.
    """
    if response_id is not None:
        _require(response_id, principal)
    if route.key != CREATE:
        return {}
    previous = content.get("previous_response_id")
    if isinstance(previous, str):
        _require(previous, principal)
    drawn = secrets.token_hex(DRAWN // 2)
    return {"request_id": f"{PREFIX}{drawn}{_owner(drawn, principal)}"}


def _require(response_id: str, principal: Principal) -> None:
    known = response_id.removeprefix(PREFIX)
    drawn, owner = known[:DRAWN], known[DRAWN:]
    if not hmac.compare_digest(owner.encode(), _owner(drawn, principal).encode()):
        # In the words of vLLM's server for one that there is not.
        text = f"Response with id '{response_id}' not found."
        raise PlatformError(Code.NOT_FOUND, text, param="response_id")


def _owner(drawn: str, principal: Principal) -> str:
    told = f"{drawn}\0{principal.rule}\0{principal.id}"
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:DRAWN]
