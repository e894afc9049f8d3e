"""Client certificates that a trusted edge hands on in a header."""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.denial import Denial
from tests.kube import KubeApi

LABELS = {"app": "clients"}
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ml"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "staff"),
        ]
    )


def issued(
    name: str,
    by: Signed | None = None,
    *,
    begins: datetime | None = None,
    use: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
    is_authority: bool = False,
) -> Signed:
    """Make a certificate for three days, by default from yesterday on."""
    key = ec.generate_private_key(ec.SECP256R1())
    begins = begins or datetime.now(UTC) - DAY
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(by.certificate.subject if by else named(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + 3 * DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    signer = by or Signed(None, key)  # type: ignore[arg-type]  # its own
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    of_signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    builder = builder.add_extension(own, critical=False).add_extension(of_signer, critical=False)
    if is_authority:
        usage = x509.KeyUsage(
            **{name: name in ("key_cert_sign", "crl_sign") for name in (
                "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
                "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")}
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    elif use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return Signed(builder.sign(signer.key, hashes.SHA256()), key)


@pytest.fixture(scope="module")
def authority() -> Signed:
    return issued("authority", is_authority=True)


def policy(**source: str) -> dict[str, Any]:
    source = source or {"xfccHeader": "x-forwarded-client-cert"}
    rule = {"selector": {"matchLabels": LABELS}, "source": source}
    return {"namespace": "models", "authentication": {"mtls": {"x509": rule}}}


def xfcc(signed: Signed, **more: str) -> dict[str, str]:
    fields = {"Cert": f'"{quote(signed.pem.decode())}"', **more}
    return {"x-forwarded-client-cert": ";".join(f"{k}={v}" for k, v in fields.items())}


async def code_of(asking: Any) -> Code | str:
    try:
        return str((await asking).id)
    except Denial as denial:
        return denial.code


async def test_a_client_is_known_by_its_certificate(
    kube: KubeApi, guarded: Any, authority: Signed
) -> None:
    await kube.put("ca", {"ca.crt": authority.pem}, labels=LABELS)
    ask = await guarded(policy(), kube=kube)
    principal = await ask(headers=xfcc(issued("alice", authority)))
    assert (principal.id, principal.rule) == ("alice", "mtls")
    assert principal.claims["Organization"] == ["ml", "staff"]


async def test_certificates_that_nobody_vouches_for_are_refused(
    kube: KubeApi, guarded: Any, authority: Signed
) -> None:
    await kube.put("ca", {"ca.crt": authority.pem}, labels=LABELS)
    ask = await guarded(policy(), kube=kube)
    other = issued("authority", is_authority=True)
    now = datetime.now(UTC)
    for signed in (
        issued("alice", other),
        issued("alice"),
        issued("alice", authority, begins=now - 10 * DAY),
        issued("alice", authority, begins=now + DAY),
        issued("alice", authority, use=ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        assert await code_of(ask(headers=xfcc(signed))) is Code.UNAUTHENTICATED
    assert await code_of(ask(headers=xfcc(issued("bob", authority, use=None)))) == "bob"


@pytest.mark.parametrize(
    "header",
    [
        *("", "Hash=abc", "Cert=", 'Cert="nonsense"', "Cert=%%%", "By=x;Subject=CN=alice", '"'),
        "x" * 40_000,
    ],
)
async def test_headers_without_a_certificate_are_refused(
    kube: KubeApi, guarded: Any, authority: Signed, header: str
) -> None:
    await kube.put("ca", {"ca.crt": authority.pem}, labels=LABELS)
    ask = await guarded(policy(), kube=kube)
    sent = {"x-forwarded-client-cert": header}
    assert await code_of(ask(headers=sent)) is Code.UNAUTHENTICATED
    assert await code_of(ask()) is Code.UNAUTHENTICATED


async def test_a_subject_with_quotes_in_it_brings_no_other_certificate(
    kube: KubeApi, guarded: Any, authority: Signed
) -> None:
    await kube.put("ca", {"ca.crt": authority.pem}, labels=LABELS)
    ask = await guarded(policy(), kube=kube)
    name = "x-forwarded-client-cert"
    alice, mallory = (
        xfcc(issued(who, authority))[name].replace('Cert="', "Cert=").rstrip('"')
        for who in ("alice", "mallory")
    )
    for subject in (f'CN=m\\";{mallory};x=\\"', f'CN=m\\",{mallory};x=\\"'):
        assert await code_of(ask(headers={name: f'{alice};Subject="{subject}"'})) == "alice"
    twice = {name: f"{alice};{mallory}"}
    assert await code_of(ask(headers=twice)) is Code.UNAUTHENTICATED


async def test_of_several_hops_the_last_one_counts(
    kube: KubeApi, guarded: Any, authority: Signed
) -> None:
    await kube.put("ca", {"ca.crt": authority.pem}, labels=LABELS)
    ask = await guarded(policy(), kube=kube)
    first = xfcc(issued("mallory", authority))["x-forwarded-client-cert"]
    last = xfcc(issued("alice", authority), Subject='"CN=a,O=b;c"')["x-forwarded-client-cert"]
    assert await code_of(ask(headers={"x-forwarded-client-cert": f"{first},{last}"})) == "alice"


async def test_a_hash_must_be_the_certificates(
    kube: KubeApi, guarded: Any, authority: Signed
) -> None:
    await kube.put("ca", {"ca.crt": authority.pem}, labels=LABELS)
    ask = await guarded(policy(), kube=kube)
    alice = issued("alice", authority)
    own = hashlib.sha256(alice.der).hexdigest()
    assert await code_of(ask(headers=xfcc(alice, Hash=own))) == "alice"
    assert await code_of(ask(headers=xfcc(alice, Hash="0" * 64))) is Code.UNAUTHENTICATED


async def test_the_header_of_rfc_9440_is_understood(
    kube: KubeApi, guarded: Any, authority: Signed
) -> None:
    await kube.put("ca", {"ca.crt": authority.pem}, labels=LABELS)
    ask = await guarded(policy(clientCertHeader="client-cert"), kube=kube)
    alice = issued("alice", authority)
    sequence = f":{base64.b64encode(alice.der).decode()}:"
    assert await code_of(ask(headers={"client-cert": sequence})) == "alice"
    assert await code_of(ask(headers={"client-cert": quote(alice.pem.decode())})) == "alice"
    for header in (":!:", "::", ":AAAA:"):
        assert await code_of(ask(headers={"client-cert": header})) is Code.UNAUTHENTICATED


async def test_without_authorities_nobody_is_known(
    kube: KubeApi, guarded: Any, authority: Signed
) -> None:
    await kube.put("broken", {"ca.crt": b"nonsense"}, labels=LABELS)
    ask = await guarded(policy(), kube=kube)
    alice = xfcc(issued("alice", authority))
    assert await code_of(ask(headers=alice)) is Code.UNAUTHENTICATED
    await kube.stop()
    down = await guarded(policy(), kube=kube)
    assert await code_of(down(headers=alice)) is Code.UNAVAILABLE


async def test_a_source_that_is_no_header_is_refused(guarded: Any) -> None:
    with pytest.raises(ValueError, match="'expression' is not supported"):
        await guarded(policy(expression="source.certificate"))
