"""`rayserve keys`."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from rayserve_platform.cli.moments import Moment, Span

Result = TypeVar("Result")

FILE_VARIABLE = "RAYSERVE_KEYS_FILE"


class Place(Protocol):
    """Where keys are kept."""

    def read(self) -> Any:
        """Return the file of keys."""
        ...

    def update(self, verb: Callable[[Any, Any], tuple[Any, Result]]) -> Result:
        """Change it, alone."""
        ...


PLACE_OPTIONS = (
    click.option(
        "--file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=FILE_VARIABLE,
        show_envvar=True,
        help="File that the keys' digests are kept in; made by the first `create`.",
    ),
    click.option(
        "--pepper-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File of the pepper, unless RAYSERVE_KEYS_PEPPER holds it; by default FILE.pepper,"
        " made by the first `create`.",
    ),
    click.option(
        "--secret",
        metavar="[NAMESPACE/]NAME",
        help="Kubernetes Secret that they are kept in, in place of a file; the pepper's is"
        " NAME-pepper.",
    ),
    click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path, dir_okay=False),
        help="How the cluster is reached; default: as kubectl does, or as the pod this runs in.",
    ),
    click.option("--context", help="Of the kubeconfig; default: its current one."),
)


def _placed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the `Place` that its options name, as its first argument."""

    @wraps(command)
    def placed(
        file: Path | None,
        pepper_file: Path | None,
        secret: str | None,
        kubeconfig: Path | None,
        context: str | None,
        **given: Any,
    ) -> None:
        with _explained():
            if secret is None:
                command(_file(file, pepper_file), **given)
            else:
                _refuse_two_places(pepper_file)
                command(_secret(secret, kubeconfig, context), **given)

    wrapped: Callable[..., None] = placed
    for option in reversed(PLACE_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _file(path: Path | None, pepper: Path | None) -> Place:
    from rayserve_platform.edge.keys.file import KeysInFile

    if path is None:
        raise click.UsageError(f"say where the keys are: --file, --secret, or {FILE_VARIABLE}")
    return KeysInFile(path, pepper)


def _secret(name: str, kubeconfig: Path | None, context: str | None) -> Place:
    from rayserve_platform.edge.keys.cluster import find_cluster
    from rayserve_platform.edge.keys.secret import KeysInSecret

    if not re.fullmatch(r"([a-z0-9-]{1,63}/)?[a-z0-9][a-z0-9.-]{0,240}", name):
        raise click.UsageError(f"--secret: '{name}' is no [NAMESPACE/]NAME of a Secret")
    cluster = find_cluster(kubeconfig, context)
    namespace, _, own = name.rpartition("/")
    return KeysInSecret(cluster, namespace or cluster.namespace, own)


def _refuse_two_places(pepper_file: Path | None) -> None:
    source = click.get_current_context().get_parameter_source("file")
    if source is click.core.ParameterSource.COMMANDLINE or pepper_file is not None:
        raise click.UsageError("--secret goes with neither --file nor --pepper-file")


@contextmanager
def _explained() -> Iterator[None]:
    """Tell what a person can mend, without a traceback."""
    from pydantic import ValidationError

    from rayserve_platform.edge.keys.change import KeyFault
    from rayserve_platform.settings.model import explain

    try:
        yield
    except KeyFault as fault:
        raise click.ClickException(str(fault)) from None
    except ValidationError as error:
        raise click.ClickException("; ".join(explain(error))) from None


@click.group()
def keys() -> None:
    """Make, list and end API keys (`rsp_…`) for people and programs without Kubernetes.

    Only digests are kept; a key itself is shown once, when it is made. Servers that are told of the
    file follow its changes within half a second.
    """


@keys.command()
@_placed
@click.option("--principal", required=True, help="Who will call with the key.")
@click.option("--group", "groups", multiple=True, help="A group the principal is in; repeatable.")
@click.option("--model", "models", multiple=True, help="A model it may call; default: every one.")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["openai", "caikit", "tgis", "kserve"]),
    help="A protocol it may call; default: every one.",
)
@click.option("--load", is_flag=True, help="It may load and unload these models, too.")
@click.option("--expires", type=Moment(), help="When it ends: 90d, or 2027-01-31; default: never.")
@click.option("--not-before", type=Moment(), help="When it begins; default: now.")
@click.option("--note", default="", help="For people.")
@click.option("--json", "as_json", is_flag=True, help="Print the key and its attributes as JSON.")
def create(
    place: Place,
    *,
    as_json: bool,
    models: tuple[str, ...],
    protocols: tuple[str, ...],
    **attributes: Any,
) -> None:
    """Make a key and print it.

    The key alone goes to standard output, so that KEY=$(rayserve keys create …) works.
    """
    from rayserve_platform.edge.keys import change

    now = datetime.now(UTC).replace(microsecond=0)
    if attributes["expires"] is not None and attributes["expires"] <= now:
        raise click.ClickException("--expires: is in the past")
    attributes |= {"models": models or None, "protocols": protocols or None}

    def verb(kept: Any, pepper: Any) -> Any:
        after, key, token = change.create(kept, pepper(), now=now, **attributes)
        return after, (key, token)

    key, token = place.update(verb)
    _show_new(key, token, as_json=as_json)


@keys.command("list")
@_placed
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(place: Place, *, as_json: bool) -> None:
    """List the keys: ids, owners, scopes, states. Never a digest."""
    kept = place.read()
    now = datetime.now(UTC)
    if as_json:
        click.echo(json.dumps([_described(key, now) for key in kept.keys], indent=2))
    elif kept.keys:
        _print_table(kept.keys, now)
    else:
        click.echo("There is no key yet; make one with rayserve keys create.", err=True)


@keys.command()
@_placed
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--delete", is_flag=True, help="Leave no trace in the file, so that its size stays.")
def revoke(place: Place, *, ids: tuple[str, ...], delete: bool) -> None:
    """End keys at once, by their ids (rsp_<ID>_…)."""
    from rayserve_platform.edge.keys import change

    def verb(kept: Any, _: Any) -> Any:
        for key_id in ids:
            kept = (change.remove if delete else change.revoke)(kept, _id(key_id))
        return kept, None

    place.update(verb)
    click.echo(f"{'deleted' if delete else 'revoked'}: {', '.join(map(_id, ids))}", err=True)


@keys.command()
@_placed
@click.argument("id_", metavar="ID")
@click.option(
    "--overlap",
    type=Span(),
    default="24h",
    show_default=True,
    help="How long the old key goes on, so that its users can change; 0: not at all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the key and its attributes as JSON.")
def rotate(place: Place, *, id_: str, overlap: timedelta, as_json: bool) -> None:
    """Make a new key with the rights of an old one, which ends after a while."""
    from rayserve_platform.edge.keys import change

    now = datetime.now(UTC).replace(microsecond=0)

    def verb(kept: Any, pepper: Any) -> Any:
        after, key, token = change.rotate(kept, pepper(), _id(id_), now=now, overlap=overlap)
        return after, (key, token, change.find(after, _id(id_)))

    key, token, old = place.update(verb)
    ends = "has ended" if old.disabled else f"ends {_time(old.expires)}"
    click.echo(f"{old.id} {ends}", err=True)
    _show_new(key, token, as_json=as_json)


def _id(text: str) -> str:
    """Take a whole key for its id: people paste what they have. The secret is never repeated."""
    from rayserve_platform.edge.keys.token import parse

    found = parse(text)
    return found[0] if found else text


def _show_new(key: Any, token: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"key": token, **_described(key, datetime.now(UTC))}, indent=2))
        return
    until = f", until {_time(key.expires)}" if key.expires else ""
    click.echo(f"{key.id} for {key.principal}{until}; it is not shown again:", err=True)
    click.echo(token)


def _described(key: Any, now: datetime) -> dict[str, Any]:
    found: dict[str, Any] = key.model_dump(mode="json", exclude={"digest"})
    return {**found, "state": key.state(now)}


def _print_table(listed: Any, now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    scope = ("MODELS", "PROTOCOLS", "LOAD")
    for column in ("ID", "PRINCIPAL", "GROUPS", *scope, "STATE", "EXPIRES", "NOTE"):
        table.add_column(column, overflow="fold", no_wrap=column in ("ID", "STATE", "EXPIRES"))
    for key in listed:
        row = (
            key.id,
            key.principal,
            ", ".join(key.groups),
            "all" if key.models is None else ", ".join(key.models),
            "all" if key.protocols is None else ", ".join(key.protocols),
            "yes" if key.load else "no",
            key.state(now),
            _time(key.expires) if key.expires else "never",
            key.note,
        )
        # As text: a name may look like rich's markup.
        table.add_row(*map(Text, row))
    # A pipe gets whole lines, whatever the width of the terminal behind it.
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
    console.print(table)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")
