"""`rayserve edge`: what stands in front of Serve."""

from pathlib import Path
from typing import Any

import click

from rayserve_platform.cli.config import checked, http_address, rpc_port
from rayserve_platform.edge.front import haproxy, nginx
from rayserve_platform.edge.front.site import Site

RENDERERS = {"haproxy": haproxy.render, "nginx": nginx.render}
FILES = ("certificate", "key", "client_ca")
LIMITS = ("max_connections", "max_streams", "header_s", "idle_s", "answer_s")


def _default(name: str) -> Any:
    return Site.__dataclass_fields__[name].default


@click.group()
def edge() -> None:
    """Put TLS in front of Serve."""


@edge.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--server", type=click.Choice(sorted(RENDERERS)), default="haproxy", show_default=True
)
@click.option(
    "--listen", default="*:443", show_default=True, help="ADDRESS:PORT; * is every address."
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    required=True,
    help="PEM file: the certificate, its chain and, without --key, its key.",
)
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of the key.")
@click.option(
    "--client-ca",
    type=click.Path(path_type=Path),
    help="PEM file of authorities. Clients may then show a certificate that one of them signed; "
    "the ingress gets it for the policy's x509 rules.",
)
@click.option("--user", help="Account to run as, for a server that is started as root.")
@click.option("--backend", help="Address of Serve, instead of the config's own.")
@click.option(
    "--http-port", type=click.IntRange(1, 65535), help="Of Serve, instead of the config's."
)
@click.option(
    "--grpc-port", type=click.IntRange(1, 65535), help="Of Serve, instead of the config's."
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    default=_default("max_connections"),
    show_default=True,
    help="At a time, of all clients.",
)
@click.option(
    "--max-streams",
    type=click.IntRange(1),
    default=_default("max_streams"),
    show_default=True,
    help="At a time, of one HTTP/2 connection.",
)
@click.option(
    "--header-s",
    type=click.IntRange(1),
    default=_default("header_s"),
    show_default=True,
    help="Seconds for the head of a request to arrive.",
)
@click.option(
    "--idle-s",
    type=click.IntRange(1),
    default=_default("idle_s"),
    show_default=True,
    help="Seconds between two pieces of a request.",
)
@click.option(
    "--answer-s",
    type=click.IntRange(1),
    default=_default("answer_s"),
    show_default=True,
    help="Seconds between two pieces of an answer.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write, instead of the output."
)
def render(config: Path, *, server: str, out: Path | None, **options: Any) -> None:
    """Render the configuration of a TLS server in front of the Serve config CONFIG.

    One port takes HTTPS and gRPC over TLS, and hands each to Serve's own port for it. What no
    client needs is refused there, and headers that only the platform may set are taken off. Files
    are named as the server will find them; nothing is read but CONFIG.
    """
    try:
        text = RENDERERS[server](_site(config, options))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{out}: cannot be written: {error.strerror}") from None


def _site(config: Path, options: dict[str, Any]) -> Site:
    """Return what the server has to know, from the config and the command line."""
    found = checked(config)
    host, port = http_address(found.content)
    host = options["backend"] or host
    grpc = options["grpc_port"] or rpc_port(found.content)
    bodies = [
        args.ingress.limits.max_body_mib
        for name, args in found.args.items()
        if name in found.routed
    ]
    changed: dict[str, Any] = {name: options[name] for name in LIMITS}
    changed |= {name: options[name] and options[name].absolute() for name in FILES}
    if bodies:
        changed["max_body_bytes"] = int(max(bodies) * 2**20)
    return Site(
        listen=options["listen"],
        user=options["user"],
        http=f"{host}:{options['http_port'] or port}",
        grpc=f"{host}:{grpc}" if grpc else None,
        one_app=len(found.routed) == 1,
        **changed,
    )
