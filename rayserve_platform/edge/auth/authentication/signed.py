"""Signed tokens (JWT) of an OpenID Connect issuer.

Source: RFC 7519, RFC 8725 (best current practices): the algorithm is the policy's to choose and the
key's to fit, never the token's; issuer, audience and expiry are required.
"""

from typing import Any

import orjson
from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from rayserve_platform.edge.auth.authentication.identity import Known
from rayserve_platform.edge.auth.authentication.jwks import Jwks
from rayserve_platform.edge.auth.authority import Authorities
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.verdict import Rejected
from rayserve_platform.settings.auth.rules import Jwt


class OneAlgorithm(JWSRegistry):
    """Knows one algorithm, and does not warn of it.

    That EdDSA got a new name (RFC 9864) is not this server's to complain about; and to silence
    warnings around a call is not safe where threads are.
    """

    def get_alg(self, name: str) -> Any:
        """Return the algorithm."""
        if name not in (self.allowed or ()) or name not in self.algorithms:
            raise UnsupportedAlgorithmError(f"Algorithm of '{name}' is not allowed")
        return self.algorithms[name]


class SignedToken:
    """Verified here; its issuer is asked only for keys."""

    needs_token = True
    is_local = True
    waits = True

    def __init__(self, rule: Jwt, authorities: Authorities) -> None:
        self._rule = rule
        self.keys = Jwks(rule, authorities)
        self._registries: dict[str, JWSRegistry] = {
            name: OneAlgorithm(algorithms=[name]) for name in rule.algorithms
        }

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return the token's claims."""
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._rule.algorithms:
            raise Rejected(f"the token's algorithm is {str(algorithm)[:20]!r}")
        if kid is not None and not isinstance(kid, str):
            raise Rejected("the token's 'kid' is no text")
        key = await self.keys.key(kid)
        if key.alg not in (None, algorithm):
            raise Rejected("the token's algorithm is not its key's")
        return Known(identity=self._claims(token, key, algorithm))

    def _claims(self, token: str, key: Key, algorithm: str) -> dict[str, Any]:
        audiences = list(self._rule.audiences)
        registry = jwt.JWTClaimsRegistry(
            leeway=self._rule.leeway,
            iss={"essential": True, "value": self.keys.issuer},
            aud={"essential": True, "values": audiences},
            exp={"essential": True},
        )
        try:
            claims = jwt.decode(token, key, registry=self._registries[algorithm]).claims
            registry.validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise Rejected(f"{type(error).__name__}: {error}") from None
        return claims

    async def start(self) -> None:
        """Begin to fetch the keys."""
        await self.keys.start()

    async def stop(self) -> None:
        """End a fetch."""
        await self.keys.stop()


def _header(token: str) -> dict[str, Any]:
    """Read a token's header; for what is no JWT at all this is all that is done."""
    parts = token.split(".")
    try:
        header = orjson.loads(urlsafe_b64decode(parts[0].encode())) if len(parts) == 3 else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise Rejected("the token is no JWT")
    return header
