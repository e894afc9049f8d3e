"""The rules of an AuthConfig's five phases.

Source of all names: Authorino's AuthConfig, `authorino.kuadrant.io/v1beta3`. Fields that Authorino
does not have are marked "ours".
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.auth.values import (
    Cache,
    CredentialsSource,
    LabelSelector,
    LocalRef,
    Pattern,
    SecretKeyRef,
    Value,
    Vocabulary,
)

Algorithm = Literal[
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
"""Signatures that a JWT may have: public keys only. `none` and shared secrets are not offered."""
Url = r"^https?://[^\s/?#@]+([/?#]\S*)?$"

Timeout = Field(default=None, ge=0, le=10_000)
"""Milliseconds, as in Authorino; within the budget of the whole decision."""


class Rule(Vocabulary):
    """What every rule has."""

    priority: int = Field(default=0, ge=0)
    """Lower numbers first; rules of the same number run at the same time."""
    when: tuple[Pattern, ...] = ()
    """The rule applies where all of these hold. One that can't be evaluated denies."""
    cache: Cache | None = None
    metrics: bool = False
    """Taken for Authorino's sake: decisions are counted by rule anyway."""


class ApiKey(Vocabulary):
    """Keys of labelled Kubernetes Secrets (entry `api_key`), or the platform's own."""

    selector: LabelSelector | None = None
    """Without it the platform's own keys are meant; ours."""
    allNamespaces: bool = False  # noqa: N815  # Authorino's name


class Jwt(Vocabulary):
    """Signed tokens of an OpenID Connect issuer.

    Authorino checks neither issuer nor audience; here a token without them would open every door
    of the issuer's, so that they must be said.
    """

    issuerUrl: str | None = Field(default=None, pattern=Url)  # noqa: N815  # Authorino's names
    """Its discovery document tells where the keys are; also what `iss` must be."""
    jwksUrl: str | None = Field(default=None, pattern=Url)  # noqa: N815
    issuer: str | None = None
    """With `jwksUrl`: what `iss` must be. Ours."""
    audiences: tuple[str, ...] = ()
    """`aud` must have one of them. Ours, and required."""
    algorithms: tuple[Algorithm, ...] = ()
    """How tokens may be signed. Ours, and required."""
    leeway: int = Field(default=0, ge=0, le=300)
    """Seconds by which the issuer's clock may differ. Ours."""
    ttl: int = Field(default=300, ge=0)
    """Seconds after which the keys are fetched again; 0 means the default, since keys rotate."""
    timeout: int | None = Timeout

    @model_validator(mode="after")
    def _complete(self) -> "Jwt":
        self.one_of("issuerUrl", "jwksUrl")
        if self.jwksUrl and not self.issuer:
            raise ValueError("'issuer' is required with 'jwksUrl': what a token's 'iss' must be")
        if self.issuerUrl and self.issuer:
            raise ValueError("'issuer' belongs to 'jwksUrl'; with 'issuerUrl' it is that URL")
        if not self.audiences:
            raise ValueError("'audiences' is required: for whom a token must have been issued")
        if not self.algorithms:
            raise ValueError("'algorithms' is required: how tokens are signed, e.g. [RS256]")
        return self


class TokenReview(Vocabulary):
    """Tokens that the Kubernetes API knows: of service accounts and users."""

    audiences: tuple[str, ...] = ()
    """For whom a token must have been issued; the policy's `hosts` if nothing is said."""
    timeout: int | None = Timeout


class Introspection(Vocabulary):
    """Opaque tokens that an OAuth2 server is asked about (RFC 7662)."""

    endpoint: str = Field(pattern=Url)
    tokenTypeHint: str | None = Field(default=None, max_length=64)  # noqa: N815  # Authorino's names
    credentialsRef: LocalRef  # noqa: N815
    """A Secret with `clientID` and `clientSecret`."""
    timeout: int | None = Timeout


class X509Source(Vocabulary):
    """The header in which the edge hands on the client's certificate, and strips any other."""

    refused: ClassVar[dict[str, str]] = {
        "expression": "a certificate is believed only from a header that the edge sets"
    }
    xfccHeader: str | None = Field(default=None, min_length=1)  # noqa: N815  # Authorino's names
    """In Envoy's form, `x-forwarded-client-cert`."""
    clientCertHeader: str | None = Field(default=None, min_length=1)  # noqa: N815
    """RFC 9440's `client-cert`, or a header with the certificate as URL-encoded PEM."""

    @model_validator(mode="after")
    def _one(self) -> "X509Source":
        self.one_of("xfccHeader", "clientCertHeader")
        return self


class X509(Vocabulary):
    """Client certificates, signed by one of the authorities in labelled Secrets (`ca.crt`)."""

    selector: LabelSelector
    allNamespaces: bool = False  # noqa: N815  # Authorino's name
    source: X509Source
    """Required: the replica itself sees no TLS, so a trusted edge must be named."""


class Plain(Vocabulary):
    """An identity that something in front has verified: part of the authorization JSON."""

    selector: str | None = None
    expression: str | None = None

    @model_validator(mode="after")
    def _one(self) -> "Plain":
        self.one_of("selector", "expression")
        return self


class Anonymous(Vocabulary):
    """Anybody."""


METHODS = ("apiKey", "jwt", "kubernetesTokenReview", "oauth2Introspection", "x509", "plain")


class Authentication(Rule):
    """One way to be known; any that succeeds is enough."""

    apiKey: ApiKey | None = None  # noqa: N815  # Authorino's names
    jwt: Jwt | None = None
    kubernetesTokenReview: TokenReview | None = None  # noqa: N815
    oauth2Introspection: Introspection | None = None  # noqa: N815
    x509: X509 | None = None
    plain: Plain | None = None
    anonymous: Anonymous | None = None
    credentials: CredentialsSource = CredentialsSource()
    defaults: dict[str, Value] = Field(default_factory=dict)
    """Added to the identity where it has no such property."""
    overrides: dict[str, Value] = Field(default_factory=dict)
    """Set in the identity, whatever it has."""

    @model_validator(mode="after")
    def _one(self) -> "Authentication":
        self.one_of(*METHODS, "anonymous")
        return self


class HttpCall(Vocabulary):
    """A request to a service of the operator's."""

    refused: ClassVar[dict[str, str]] = {
        "oauth2": "use 'sharedSecretRef'; client credentials are not fetched here"
    }
    url: str | None = Field(default=None, pattern=Url)
    urlExpression: str | None = None  # noqa: N815  # Authorino's names
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] = "GET"
    body: Value | None = None
    bodyParameters: dict[str, Value] = Field(default_factory=dict)  # noqa: N815
    contentType: Literal["application/x-www-form-urlencoded", "application/json"] = (  # noqa: N815
        "application/x-www-form-urlencoded"
    )
    headers: dict[str, Value] = Field(default_factory=dict)
    sharedSecretRef: SecretKeyRef | None = None  # noqa: N815
    credentials: CredentialsSource = CredentialsSource()
    """Where the shared secret goes."""
    timeout: int | None = Timeout

    @model_validator(mode="after")
    def _one(self) -> "HttpCall":
        self.one_of("url", "urlExpression")
        self.one_of("body", "bodyParameters", least=0)
        if self.url and "{" in self.url:
            raise ValueError("'url' takes no placeholders; use 'urlExpression'")
        return self


class UserInfo(Vocabulary):
    """What the OpenID Connect issuer says of the token's owner."""

    identitySource: str | None = None  # noqa: N815  # Authorino's names
    """The name of a `jwt` rule with `issuerUrl`."""
    userInfoUrl: str | None = Field(default=None, pattern=Url)  # noqa: N815
    timeout: int | None = Timeout

    @model_validator(mode="after")
    def _one(self) -> "UserInfo":
        self.one_of("identitySource", "userInfoUrl")
        return self


class Metadata(Rule):
    """What is fetched besides; where that fails, the request is answered UNAVAILABLE."""

    refused: ClassVar[dict[str, str]] = {"uma": "fetch resource data with 'http'"}
    http: HttpCall | None = None
    userInfo: UserInfo | None = None  # noqa: N815  # Authorino's name

    @model_validator(mode="after")
    def _one(self) -> "Metadata":
        self.one_of("http", "userInfo")
        return self
