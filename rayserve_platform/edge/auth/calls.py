"""HTTP requests that a policy makes: to fetch metadata, and to tell of decisions."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from rayserve_platform.edge.auth.authority import Authorities
from rayserve_platform.edge.auth.conditions import Computed, computed
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault, Expression
from rayserve_platform.edge.auth.selector import as_json, written
from rayserve_platform.edge.auth.verdict import Unavailable
from rayserve_platform.settings.auth.rules import HttpCall

ReadSecret = Callable[[str], Awaitable[Mapping[str, bytes]]]
"""Reads the entries of a Secret of the policy's namespace by its name."""
ANY = tuple(range(200, 300))


class Caller:
    """One request of a policy, compiled."""

    def __init__(
        self, call: HttpCall, authorities: Authorities, secret: ReadSecret, where: str
    ) -> None:
        self._call = call
        self._authorities = authorities
        self._secret = secret
        self._url = Expression(call.urlExpression, f"{where}.url") if call.urlExpression else None
        self._body = Computed(call.body, f"{where}.body") if call.body else None
        self._parameters = computed(call.bodyParameters, f"{where}.bodyParameters")
        self._headers = computed(call.headers, f"{where}.headers")

    async def send(self, document: Document, *, is_read: bool = True) -> Any:
        """Return the JSON that comes back, where it is read.

        Raises:
            Unavailable: as `Authorities.ask`.
            EvaluationFault: when a value of the request has none.
        """
        headers = {name: _plain(written(one.of(document))) for name, one in self._headers.items()}
        url = self._target(document)
        if self._call.sharedSecretRef is not None:
            url = await self._sign(url, headers)
        body = self._written(document)
        if body is not None:
            headers["content-type"] = self._call.contentType
        return await self._authorities.ask(
            self._call.method,
            url,
            headers=headers,
            data=body,
            timeout_ms=self._call.timeout,
            expected=ANY,
            is_read=is_read,
        )

    def _target(self, document: Document) -> str:
        if self._url is None:
            return str(self._call.url)
        found = self._url.value(document.roots())
        if not isinstance(found, str) or urlsplit(found).scheme not in ("http", "https"):
            raise EvaluationFault("urlExpression is no http(s) URL")
        return found

    def _written(self, document: Document) -> bytes | None:
        if self._body is not None:
            return written(self._body.of(document)).encode()
        if not self._parameters:
            return None
        values = {name: one.of(document) for name, one in self._parameters.items()}
        if self._call.contentType == "application/json":
            return as_json(values)
        return urlencode({name: written(value) for name, value in values.items()}).encode()

    async def _sign(self, url: str, headers: dict[str, str]) -> str:
        """Add the shared secret where the policy wants it; returns the URL."""
        reference, place = self._call.sharedSecretRef, self._call.credentials
        assert reference is not None
        entries = await self._secret(reference.name)
        if reference.key not in entries:
            raise Unavailable(f"the Secret '{reference.name}' has no entry '{reference.key}'")
        secret = _plain(entries[reference.key].decode("utf-8", "replace").strip())
        if place.queryString is not None:
            joint = "&" if urlsplit(url).query else "?"
            return f"{url}{joint}{place.queryString.name}={quote(secret, safe='')}"
        if place.customHeader is not None:
            headers[place.customHeader.name] = secret
        elif place.cookie is not None:
            headers["cookie"] = f"{place.cookie.name}={secret}"
        else:
            prefix = place.authorizationHeader.prefix if place.authorizationHeader else "Bearer"
            headers["authorization"] = f"{prefix} {secret}".strip()
        return url


def _plain(text: str) -> str:
    """Return a header's value; what would end it early is refused."""
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise EvaluationFault("a header's value has control characters")
    return text
