"""The `rayserve` command."""

import importlib
from typing import Any

import click

import rayserve_platform

COMMANDS = {
    "auth": "rayserve_platform.cli.auth:auth",
    "bench": "rayserve_platform.cli.bench:bench",
    "check": "rayserve_platform.cli.check:check",
    "convert": "rayserve_platform.cli.convert:convert",
    "edge": "rayserve_platform.cli.edge:edge",
    "keys": "rayserve_platform.cli.keys:keys",
    "run": "rayserve_platform.cli.run:run",
}
"""Subcommands by name; each is imported when it is called, since some import Ray."""


class LazyGroup(click.Group):
    """A group that imports a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: Any = getattr(importlib.import_module(module), attribute)
        found: click.Command = command
        return found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rayserve_platform.__version__, prog_name="rayserve")
def main() -> None:
    """Serve models on Ray: run and check Serve configs, measure servers."""
