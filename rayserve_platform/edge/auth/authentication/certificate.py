"""Client certificates that a trusted edge hands on in a header.

Sources: Envoy's `x-forwarded-client-cert` (its `Cert` is URL-encoded PEM); RFC 9440's `client-cert`
(a byte sequence of structured fields: DER in base64 between colons). The chain is checked here
again, against the authorities of the policy, also when the edge has checked it.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID

from rayserve_platform.edge.auth.authentication.identity import Known
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.kubernetes import KubernetesApi, Secrets, entries
from rayserve_platform.edge.auth.verdict import Rejected
from rayserve_platform.settings.auth.rules import X509

AUTHORITY = "ca.crt"
"""The entry of a Secret that holds authorities; `tls.crt` where it lacks it, as in Authorino."""
MAX_HEADER_BYTES = 32_768
NAMES = {
    "CommonName": NameOID.COMMON_NAME,
    "Country": NameOID.COUNTRY_NAME,
    "Locality": NameOID.LOCALITY_NAME,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "Province": NameOID.STATE_OR_PROVINCE_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
}


class ClientCertificate:
    """Certificates signed by the authorities in labelled Secrets."""

    needs_token = False
    is_local = True
    waits = False

    def __init__(self, api: KubernetesApi, rule: X509, namespace: str | None) -> None:
        self._xfcc = rule.source.xfccHeader
        self._header = self._xfcc or rule.source.clientCertHeader or ""
        self._secrets = Secrets(api, rule.selector, namespace, _authorities)

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return the certificate's subject."""
        raw = credentials.header(self._header)
        if not raw:
            raise Rejected("no certificate was handed on")
        if len(raw) > MAX_HEADER_BYTES:
            raise Rejected("the certificate is too large")
        try:
            certificate = x509.load_pem_x509_certificate(_pem_of(raw, xfcc=self._xfcc is not None))
            _verify(certificate, [one for kept in self._secrets.kept.values() for one in kept])
            return Known(identity=_subject(certificate))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Rejected(f"no certificate: {error}") from None

    async def start(self) -> None:
        """Read the authorities and follow them."""
        await self._secrets.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._secrets.stop()


def _authorities(secret: Mapping[str, Any]) -> list[x509.Certificate]:
    found = entries(secret)
    pem = found.get(AUTHORITY) or found.get("tls.crt")
    if not pem:
        raise ValueError(f"it has no entry '{AUTHORITY}'")
    return x509.load_pem_x509_certificates(pem)


def _pem_of(raw: str, *, xfcc: bool) -> bytes:
    """Return the certificate of a header as PEM; of several, the one of the nearest hop's client.

    Raises:
        ValueError: when there is none.
    """
    if not xfcc:
        if raw.startswith(":") and raw.endswith(":") and len(raw) > 2:
            return _pem(base64.b64decode(raw[1:-1], validate=True))
        return unquote(raw).encode()
    fields: dict[str, str] = {}
    last = _split(raw, ",")[-1]
    for pair in _split(last, ";"):
        name, _, value = pair.partition("=")
        known = name.strip().lower()
        if known in fields and known in ("cert", "hash"):
            raise ValueError(f"it has several {known}")
        fields[known] = value.strip().strip('"')
    pem = unquote(fields.get("cert", "")).encode()
    claimed = fields.get("hash")
    if claimed is not None and pem:
        der = x509.load_pem_x509_certificate(pem).public_bytes(_der())
        if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), claimed.lower()):
            raise ValueError("its hash is another's")
    return pem


def _der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


def _pem(der: bytes) -> bytes:
    lines = binascii.b2a_base64(der)
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"-----END CERTIFICATE-----\n"


def _split(text: str, separator: str) -> list[str]:
    """Split a header's elements; what stands between quotes is left whole.

    A quote behind a backslash is part of a value, as Envoy writes those of a subject.
    """
    parts, quoted, escaped, start = [], False, False, 0
    for place, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\" and quoted:
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _verify(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> None:
    """Check signature, validity and use for clients.

    Raises:
        Rejected: when no authority vouches for it now.
    """
    if not authorities:
        raise Rejected("there is no authority for certificates")
    permit = verification.ExtensionPolicy.permit_all()
    leaf = permit.may_be_present(
        x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, _for_clients
    )
    store = verification.Store(list(authorities))
    builder = verification.PolicyBuilder().store(store).time(datetime.now(UTC))
    policy = builder.extension_policies(
        ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaf
    )
    try:
        policy.build_client_verifier().verify(certificate, [])
    except verification.VerificationError as error:
        raise Rejected(f"no authority vouches for the certificate: {error}") from None


def _for_clients(_policy: Any, _certificate: x509.Certificate, use: Any) -> None:
    if use is not None and x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH not in use:
        raise ValueError("it is not for clients")


def _subject(certificate: x509.Certificate) -> dict[str, Any]:
    """Return the subject as Authorino names its parts."""
    subject = certificate.subject
    found: dict[str, Any] = {}
    for name, oid in NAMES.items():
        values = [str(one.value) for one in subject.get_attributes_for_oid(oid)]
        if values:
            is_single = name in ("CommonName", "SerialNumber")
            found[name] = values[0] if is_single else values
    return {**found, "username": found.get("CommonName", subject.rfc4514_string())}
