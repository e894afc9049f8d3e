"""Which Kubernetes API a kubeconfig means, and as whom."""

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from rayserve_platform.edge.keys import cluster as module
from rayserve_platform.edge.keys.change import KeyFault
from rayserve_platform.edge.keys.cluster import find_cluster
from tests.conftest import Server

SERVER = "https://cluster.example:6443"


@pytest.fixture(autouse=True)
def _nothing_of_the_environment(monkeypatch, tmp_path):
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def write(tmp_path):
    def kubeconfig(
        name: str = "config", *, user: Any = None, cluster: Any = None, **more: Any
    ) -> Any:
        content = {
            "current-context": "one",
            "contexts": [
                {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "models"}},
                {"name": "two", "context": {"cluster": "c", "user": "u"}},
            ],
            "clusters": [{"name": "c", "cluster": {"server": SERVER, **(cluster or {})}}],
            "users": [{"name": "u", "user": user if user is not None else {"token": "t"}}],
            **more,
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content))
        return path

    return kubeconfig


def test_the_current_context_counts_and_another_can_be_named(write):
    path = write()
    found = find_cluster(path, None)
    assert (found.url, found.namespace, found.token) == (SERVER, "models", "t")
    assert find_cluster(path, "two").namespace == "default"


def test_of_several_files_the_first_that_has_a_name_counts(write, monkeypatch):
    first = write("a", **{"users": [], "current-context": "two"})
    second = write("b", user={"token": "second"})
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}:/nowhere")
    found = find_cluster(None, None)
    assert (found.namespace, found.token) == ("default", "second")


def test_the_file_at_home_is_the_default(write, tmp_path):
    (tmp_path / "home/.kube").mkdir(parents=True)
    write("home/.kube/config", user={"token": "home"})
    assert find_cluster(None, None).token == "home"


def test_a_token_may_be_in_a_file_beside(write, tmp_path):
    (tmp_path / "token").write_text("beside\n")
    assert find_cluster(write(user={"tokenFile": "token"}), None).token == "beside"


def test_a_credential_plugin_is_asked(write, tmp_path):
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "asked = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "token = sys.argv[1] + os.environ['SUFFIX'] + asked['apiVersion']\n"
        "print(json.dumps({'kind': 'ExecCredential', 'status': {'token': token}}))\n"
    )
    plugin.chmod(stat.S_IRWXU)
    asked = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "args": ["from-"],
        "env": [{"name": "SUFFIX", "value": "plugin-"}],
    }
    token = find_cluster(write(user={"exec": asked}), None).token
    assert token == "from-plugin-client.authentication.k8s.io/v1"
    for command in ("false", "true", "/nowhere"):
        with pytest.raises(KeyFault):
            find_cluster(write(user={"exec": {**asked, "command": command}}), None)


def test_in_a_pod_its_service_account_counts(tmp_path, monkeypatch):
    authority, _ = issued("ca")
    for name, text in (("token", "pod\n"), ("namespace", "ns\n"), ("ca.crt", authority.decode())):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "IN_POD", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    found = find_cluster(None, None)
    assert (found.url, found.namespace, found.token) == ("https://[fd00::1]:6443", "ns", "pod")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"current-context": ""}, "no current-context"),
        ({"contexts": []}, "there is no context 'one'"),
        ({"clusters": []}, "there is no cluster 'c'"),
        ({"users": []}, "there is no user 'u'"),
        ({"user": {"username": "a", "password": "b"}}, "'username': use a token"),
        ({"user": {"auth-provider": {}}}, "'auth-provider': use a credential plugin"),
        ({"user": {"as": "root", "token": "t"}}, "impersonation is not supported"),
        ({"cluster": {"proxy-url": "http://p"}}, "'proxy-url' is not supported"),
        ({"cluster": {"certificate-authority": "/nowhere"}}, "can't read /nowhere"),
        ({"user": {"tokenFile": "/nowhere"}}, "can't read /nowhere"),
        ({"cluster": {"certificate-authority-data": "!"}}, "context 'one'"),
    ],
)
def test_what_is_not_supported_is_named(write, settings, words):
    with pytest.raises(KeyFault, match=words):
        find_cluster(write(**settings), None)


def test_no_file_at_all_says_where_it_looked(tmp_path):
    with pytest.raises(KeyFault, match=r"there is no .*/\.kube/config, nor is this a pod"):
        find_cluster(None, None)


def issued(name: str, by: tuple[bytes, bytes] | None = None) -> tuple[bytes, bytes]:
    """Make a certificate for 127.0.0.1, and its key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.load_pem_x509_certificate(by[0]).subject if by else subject
    signer: Any = load_pem_private_key(by[1], None) if by else key
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
    )
    pem = builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)
    return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("is_beside", [True, False])
async def test_a_server_is_believed_by_its_authority_and_told_who_asks_by_a_certificate(
    write, tmp_path, is_beside
):
    authority = issued("ca")
    files = {"ca": authority, "server": issued("server", authority), "me": issued("me", authority)}
    for name, (certificate, key) in files.items():
        (tmp_path / f"{name}.crt").write_bytes(certificate)
        (tmp_path / f"{name}.key").write_bytes(key)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    def given(field: str, name: str) -> dict[str, str]:
        if is_beside:
            return {field: name}
        return {f"{field}-data": base64.b64encode((tmp_path / name).read_bytes()).decode()}

    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            log_config=None,
            lifespan="off",
            ssl_certfile=str(tmp_path / "server.crt"),
            ssl_keyfile=str(tmp_path / "server.key"),
            ssl_ca_certs=str(tmp_path / "ca.crt"),
            ssl_cert_reqs=ssl.CERT_REQUIRED,
        )
        server = Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110  # it has no event for that
            await asyncio.sleep(0)
        try:
            own = {**given("client-certificate", "me.crt"), **given("client-key", "me.key")}
            trusted = {"server": url, **given("certificate-authority", "ca.crt")}
            found = find_cluster(write(user=own, cluster=trusted), None)
            assert await _get(found) == "hello"
            for user, cluster in (({}, trusted), (own, {"server": url})):
                other = find_cluster(write(user=user, cluster=cluster), None)
                with pytest.raises(httpx.HTTPError):
                    await _get(other)
            unchecked = {"server": url, "insecure-skip-tls-verify": True}
            assert await _get(find_cluster(write(user=own, cluster=unchecked), None)) == "hello"
        finally:
            server.ending.set()
            with contextlib.suppress(Exception):
                await serving


async def _get(found) -> str:
    async with httpx.AsyncClient(verify=found.tls, trust_env=False) as client:
        return (await client.get(found.url)).text
