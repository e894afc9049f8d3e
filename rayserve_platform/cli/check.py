"""`rayserve check`."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def check(files: tuple[Path, ...]) -> None:
    """Validate Serve config FILES without starting anything.

    Checks the form of the file, Ray Serve's own schema, and the args of every application, down to
    the names of vLLM's arguments. Exits 1 if any file has an error.
    """
    from rayserve_platform.serving.check import check as check_file

    failed = False
    for path in files:
        found = check_file(path)
        for line in found.errors:
            click.secho(f"{path}: error: {line}", fg="red")
        for line in found.notes:
            click.secho(f"{path}: note: {line}", fg="yellow")
        if not found.errors:
            click.echo(
                f"{path}: ok ({', '.join(app['name'] for app in found.content['applications'])})"
            )
        failed = failed or bool(found.errors)
    sys.exit(1 if failed else 0)
