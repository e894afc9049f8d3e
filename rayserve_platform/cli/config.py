"""A Serve config file as commands read it: checked, and where a client reaches it."""

from pathlib import Path
from typing import Any

import click


def checked(config: Path) -> Any:
    """Validate a config file; its notes are shown.

    Raises:
        click.ClickException: with its errors.
    """
    from rayserve_platform.serving.check import check

    found = check(config)
    for line in found.notes:
        click.secho(f"{config}: note: {line}", fg="yellow", err=True)
    if found.errors:
        raise click.ClickException("\n".join(f"{config}: {line}" for line in found.errors))
    return found


def http_address(content: dict[str, Any]) -> tuple[str, int]:
    """Return where a client on this machine reaches HTTP."""
    options = content.get("http_options") or {}
    host = options.get("host") or "127.0.0.1"
    return ("127.0.0.1" if host == "0.0.0.0" else host), int(options.get("port") or 8000)


def rpc_port(content: dict[str, Any]) -> int | None:
    """Return the port of gRPC; None where it is not served."""
    options = content.get("grpc_options") or {}
    return int(options.get("port") or 9000) if options.get("grpc_servicer_functions") else None
