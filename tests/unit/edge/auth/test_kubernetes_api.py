"""How the Kubernetes API is reached: its certificate, the replica's own token, where it is."""

import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.guard import Guard
from rayserve_platform.settings.auth.app import Auth
from rayserve_platform.settings.auth.policy import Policy

POLICY = Policy.model_validate(
    {"authentication": {"k": {"kubernetesTokenReview": {"audiences": ["rayserve"]}}}}
)


def certificate(folder: Path) -> Path:
    """Make a certificate for this machine that vouches for itself; returns the file with both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "tls.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


class Api:
    """An API server over TLS that notes by whom it is asked."""

    def __init__(self) -> None:
        self.asked_by: list[str] = []
        self.port = 0

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked_by.append(request.headers.get("authorization", ""))
        user = {"username": "bot"}
        status = {"authenticated": True, "user": user, "audiences": ["rayserve"]}
        return web.json_response({"kind": "TokenReview", "status": status}, status=201)

    @contextlib.asynccontextmanager
    async def running(self, file: Path) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()


async def decided(token: str, **kubernetes: Any) -> str | Code:
    guard = Guard(Auth.model_validate({"policy": POLICY, "kubernetes": kubernetes}), POLICY)
    request = Request(id="r", protocol="openai")
    credentials = Credentials([("authorization", f"Bearer {token}")])
    try:
        return (await guard.decide(credentials, request, Target(model="m"))).id
    except Denial as denial:
        return denial.code
    finally:
        await guard.stop()


async def test_the_server_is_believed_by_its_authority_alone(tmp_path: Path) -> None:
    api, file = Api(), certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    stranger = certificate(other)
    async with api.running(file):
        url = f"https://127.0.0.1:{api.port}"
        assert await decided("t", url=url, ca_file=str(file)) == "bot"
        for ca in (str(stranger), None, str(tmp_path / "absent")):
            assert await decided("t", url=url, ca_file=ca) is Code.UNAVAILABLE
    assert len(api.asked_by) == 1, "a stranger is not told a token"


async def test_the_replicas_own_token_is_read_anew_each_time(tmp_path: Path) -> None:
    api, file, token = Api(), certificate(tmp_path), tmp_path / "token"
    async with api.running(file):
        settings = {
            "url": f"https://127.0.0.1:{api.port}",
            "ca_file": str(file),
            "token_file": str(token),
        }
        await decided("a", **settings)
        token.write_text("first\n")
        await decided("b", **settings)
        token.write_text("second\n")
        await decided("c", **settings)
    assert api.asked_by == ["", "Bearer first", "Bearer second"]


async def test_in_a_pod_the_server_is_where_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, file = Api(), certificate(tmp_path)
    async with api.running(file):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        assert await decided("t", ca_file=str(file)) == "bot"
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
        assert await decided("t", ca_file=str(file)) is Code.UNAVAILABLE
