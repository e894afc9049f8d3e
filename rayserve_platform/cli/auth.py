"""`rayserve auth`."""

import asyncio
import sys
from pathlib import Path
from typing import Literal, TextIO
from urllib.parse import urlsplit

import click


@click.group()
def auth() -> None:
    """Look at token checks."""


class Header(click.ParamType[tuple[str, str]]):
    """A header as curl takes it."""

    name = "header"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Read it."""
        if isinstance(value, tuple):
            return value
        name, found, content = str(value).partition(":")
        if not found or not name.strip():
            self.fail(f"'{name}' is no header; write 'Name: value'", param, ctx)
        return name.strip().lower(), content.strip()


@auth.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--request", help="What to decide upon: 'POST /v1/chat/completions'.")
@click.option("-H", "--header", "headers", type=Header(), multiple=True, help="As curl takes it.")
@click.option("--token-file", type=click.File(), help="With the Bearer token; - is standard input.")
@click.option("--model", help="The model that is meant.")
@click.option("--adapter", help="The adapter that is meant, of that model.")
@click.option("--load", is_flag=True, help="That model is to be loaded or unloaded.")
@click.option("--protocol", default="openai", show_default=True, help="The wire API.")
@click.option("--grpc", "is_grpc", is_flag=True, help="The request comes over gRPC.")
@click.option("--kubernetes-url", help="Of the Kubernetes API, e.g. of kubectl proxy.")
def check(
    *,
    file: Path,
    request: str | None,
    headers: tuple[tuple[str, str], ...],
    token_file: TextIO | None,
    model: str | None,
    adapter: str | None,
    load: bool,
    protocol: str,
    is_grpc: bool,
    kubernetes_url: str | None,
) -> None:
    """Check the policy in FILE, and tell how it decides.

    FILE holds an AuthConfig, its spec, or a Serve config whose application has ingress.auth. With
    --request the decision is made as an ingress would make it, authorities are asked, and every
    step is told. Exits 1 if the policy can't be used, or denies.
    """
    from rayserve_platform.core.principal import Target
    from rayserve_platform.edge.auth.attributes import Request
    from rayserve_platform.edge.auth.explain import described, explain, read_settings
    from rayserve_platform.edge.auth.expression import PolicyFault

    sent = [*headers]
    if token_file is not None:
        sent.append(("authorization", f"Bearer {token_file.read().strip()}"))
    if (adapter is not None or load) and model is None:
        raise click.UsageError("--adapter and --load need --model")
    if adapter is not None and load:
        raise click.UsageError("--load is about a model; an adapter is not loaded")
    try:
        settings = read_settings(file, kubernetes_url)
        if request is None:
            for line in described(settings):
                click.echo(line)
            click.secho(f"{file}: ok", fg="green")
            return
        method, path, query = _parsed(request)
        asked = Request(
            id="explained",
            protocol=protocol,
            transport="grpc" if is_grpc else "http",
            method=method,
            path=path,
            query=query,
            host=dict(sent).get("host", ""),
            headers=dict(sent),
        )
        target = None
        if model is not None:
            operation: Literal["call", "load"] = "load" if load else "call"
            target = Target(model=model, adapter=adapter, operation=operation)
        found = asyncio.run(explain(settings, asked, sent, target))
    except PolicyFault as fault:
        click.secho(f"error: {fault}", fg="red", err=True)
        sys.exit(1)
    for step in found.steps:
        click.echo(f"  {step}")
    word, color = ("allowed", "green") if found.is_allowed else ("denied", "red")
    if found.is_allowed and not found.is_decided:
        word, color = "known", "yellow"
    click.secho(f"{word}: {found.verdict}", fg=color)
    sys.exit(0 if found.is_allowed else 1)


def _parsed(request: str) -> tuple[str, str, str]:
    """Return method, path and query."""
    method, _, rest = request.strip().partition(" ")
    parts = urlsplit(rest.strip())
    if not method.isalpha() or not parts.path.startswith("/"):
        raise click.UsageError(f"--request: '{request}'; write 'POST /v1/chat/completions'")
    return method.upper(), parts.path, parts.query
