"""What a caller sends to be known by: found, bounded and plain before anything costs.

A token that a request has twice is refused: two parties may each believe another one of them.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.settings.auth.values import CredentialsSource

MAX_BYTES = 8192
"""Of a token. Those of issuers with many groups have 4 KiB; servers refuse such headers at 16."""
AUTHORIZATION = "authorization"


class Credentials:
    """The headers (metadata) and the query of one request, as they came."""

    def __init__(self, headers: Iterable[tuple[str, str]], query: str = "") -> None:
        self._headers: dict[str, list[str]] = {}
        for name, value in headers:
            self._headers.setdefault(name.lower(), []).append(value)
        self._query = query
        if len(self._headers.get(AUTHORIZATION, ())) > 1:
            raise _several("authorization headers")

    def header(self, name: str) -> str | None:
        """Return a header that may be sent once.

        Raises:
            PlatformError: INVALID_ARGUMENT when there are several.
        """
        found = self._headers.get(name.lower(), ())
        if len(found) > 1:
            raise _several(f"'{name}' headers")
        return found[0] if found else None

    def find(self, source: CredentialsSource) -> str | None:
        """Return the token from where a rule looks for it; None where there is none.

        Raises:
            PlatformError: INVALID_ARGUMENT when there are several.
        """
        token = self._raw(source)
        return token or None

    def _raw(self, source: CredentialsSource) -> str | None:
        if source.customHeader is not None:
            return self.header(source.customHeader.name)
        if source.queryString is not None:
            name = source.queryString.name
            try:
                pairs = parse_qsl(self._query, max_num_fields=1000)
            except ValueError:
                raise PlatformError(
                    Code.INVALID_ARGUMENT, "The query has more than 1000 parameters."
                ) from None
            return _single([value for key, value in pairs if key == name], f"'{name}' parameters")
        if source.cookie is not None:
            name = source.cookie.name
            return _single(list(_cookies(self.header("cookie") or "", name)), f"'{name}' cookies")
        value = self.header(AUTHORIZATION)
        prefix = source.authorizationHeader.prefix if source.authorizationHeader else "Bearer"
        if value is None or not prefix:
            return value
        word, _, token = value.partition(" ")
        return token.strip(" ") if word.lower() == prefix.lower() else None


def is_plain(token: str) -> bool:
    """Say whether a token is short and plain enough to be looked at at all.

    Plain is visible ASCII: RFC 6750's characters, and those that keys are made of elsewhere.
    """
    is_short = len(token) <= MAX_BYTES
    return is_short and token.isascii() and token.isprintable() and " " not in token


def challenge(source: CredentialsSource, realm: str) -> str:
    """Return what `www-authenticate` says of a rule, in Authorino's form."""
    scheme = "Bearer"
    for named in (source.customHeader, source.queryString, source.cookie):
        if named is not None:
            scheme = named.name
    if source.authorizationHeader is not None:
        scheme = source.authorizationHeader.prefix or scheme
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    return f'{scheme} realm="{quoted}"'


def _cookies(header: str, name: str) -> Iterable[str]:
    for pair in header.split(";"):
        key, found, value = pair.strip().partition("=")
        if found and key == name:
            yield value.strip('"')


def _single(found: Sequence[str], what: str) -> str | None:
    if len(found) > 1:
        raise _several(what)
    return found[0] if found else None


def _several(what: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, f"The request has several {what}; send one.")
