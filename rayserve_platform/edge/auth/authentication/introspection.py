"""Opaque tokens that an OAuth2 server is asked about.

Source: RFC 7662, sections 2.1 and 2.2.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote, urlencode

from rayserve_platform.edge.auth.authentication.identity import About, Idle, Known
from rayserve_platform.edge.auth.authority import Authorities
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.verdict import Good, Rejected, Unavailable, Verdicts
from rayserve_platform.settings.auth.rules import Introspection

Read = Callable[[], Awaitable[Mapping[str, bytes]]]


class IntrospectedToken(Idle):
    """Verdicts are kept for a while, and never beyond a token's `exp`.

    Args:
        secret: reads the Secret with `clientID` and `clientSecret`.
    """

    needs_token = True
    is_local = False
    waits = True

    def __init__(
        self,
        rule: Introspection,
        authorities: Authorities,
        secret: Read,
        verdicts: Verdicts[Known],
        about: About,
    ) -> None:
        self._rule = rule
        self._authorities = authorities
        self._secret = secret
        self._verdicts = verdicts
        self._about = about

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return what the server says of the token."""
        about, source = self._about(token, document), document.request.source
        return await self._verdicts.get(about, lambda: self._ask(token, source))

    async def _ask(self, token: str, source: str) -> Good[Known]:
        form = {"token": token}
        if self._rule.tokenTypeHint:
            form["token_type_hint"] = self._rule.tokenTypeHint
        answer = await self._authorities.ask(
            "POST",
            self._rule.endpoint,
            headers={
                "authorization": await self._authorization(),
                "content-type": "application/x-www-form-urlencoded",
                "accept": "application/json",
            },
            data=urlencode(form).encode(),
            timeout_ms=self._rule.timeout,
            source=source,
        )
        is_active = answer.get("active") if isinstance(answer, dict) else None
        if not isinstance(is_active, bool):
            raise Unavailable("the introspection's 'active' is neither true nor false")
        if not is_active:
            raise Rejected("the token is not active")
        expires = answer.get("exp")
        if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int)):
            raise Unavailable("the introspection's 'exp' is no number")
        return Good(Known(identity=answer), expires)

    async def _authorization(self) -> str:
        """Return the client's own credentials (RFC 6749, section 2.3.1)."""
        secret = await self._secret()
        try:
            pair = [secret[name].decode().strip() for name in ("clientID", "clientSecret")]
        except (KeyError, UnicodeDecodeError):
            raise Unavailable(
                "the Secret of credentialsRef lacks clientID or clientSecret"
            ) from None
        joined = ":".join(quote(part, safe="") for part in pair)
        return f"Basic {base64.b64encode(joined.encode()).decode()}"

    async def stop(self) -> None:
        """End what is being asked."""
        await self._verdicts.stop()
