"""Tokens that the Kubernetes API reviews.

Source: Kubernetes API, authentication.k8s.io/v1 TokenReview: a client that asks for audiences must
look at `status.audiences`, since a server that knows nothing of them ignores the request.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from joserfc.util import urlsafe_b64decode

from rayserve_platform.edge.auth.authentication.identity import About, Idle, Known
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.kubernetes import REVIEW_TOKEN, KubernetesApi
from rayserve_platform.edge.auth.verdict import Good, Rejected, Unavailable, Verdicts


class ReviewedToken(Idle):
    """Service accounts' and users' tokens; verdicts are kept for a while."""

    needs_token = True
    is_local = False
    waits = True

    def __init__(
        self,
        api: KubernetesApi,
        audiences: Sequence[str],
        verdicts: Verdicts[Known],
        about: About,
        timeout_ms: int | None,
    ) -> None:
        self._api = api
        self._audiences = list(audiences)
        self._verdicts = verdicts
        self._about = about
        self._timeout_ms = timeout_ms

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return the user that the API server names."""
        about, source = self._about(token, document), document.request.source
        return await self._verdicts.get(about, lambda: self._ask(token, source))

    async def _ask(self, token: str, source: str) -> Good[Known]:
        spec = {"token": token, "audiences": self._audiences}
        status = await self._api.review(REVIEW_TOKEN, "TokenReview", spec, self._timeout_ms, source)
        is_known = status.get("authenticated", False)
        if not isinstance(is_known, bool):
            raise Unavailable("the TokenReview's 'authenticated' is neither true nor false")
        if not is_known:
            raise Rejected(f"the Kubernetes API refused the token: {status.get('error', '')}")
        self._check_audiences(status.get("audiences"))
        user = status.get("user")
        if not isinstance(user, dict) or not isinstance(user.get("username"), str):
            raise Unavailable("the TokenReview names no user")
        return Good(Known(identity=_identity(status, user), user=user), _expiry(token))

    def _check_audiences(self, found: Any) -> None:
        if not isinstance(found, list) or not set(self._audiences).intersection(map(str, found)):
            raise Rejected(f"the token is for {found}, not for {self._audiences}")

    async def stop(self) -> None:
        """End what is being asked."""
        await self._verdicts.stop()


def _identity(status: Mapping[str, Any], user: Mapping[str, Any]) -> dict[str, Any]:
    """Return the review's `status`, as Authorino does, with the user's name and groups on top."""
    known = ("authenticated", "user", "audiences")
    top = {"username": user["username"], "groups": user.get("groups") or []}
    return {**{name: status[name] for name in known}, **top}


def _expiry(token: str) -> float | None:
    """Return when a token ends, if it says so: unverified, so only to forget a verdict sooner."""
    parts = token.split(".")
    try:
        claims = orjson.loads(urlsafe_b64decode(parts[1].encode())) if len(parts) == 3 else None
    except ValueError:
        return None
    found = claims.get("exp") if isinstance(claims, dict) else None
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None
