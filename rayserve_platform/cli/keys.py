"""`rayserve keys`."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
FILE_VARIABLE = "RAYSERVE_KEYS_FILE"


class Place(Protocol):
    """Where keys are kept."""

    def read(self) -> Any:
        """Return the file of keys."""
        ...

    def update(self, verb: Callable[[Any, Any], tuple[Any, Result]]) -> Result:
        """Change it, alone."""
        ...


class Span(click.ParamType[timedelta]):
    """A length of time: a number and a unit, `90d`, or `0`."""

    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([smhdw])", value)
        if value != "0" and found is None:
            self.fail(f"'{value}' is no length of time; write 30m, 12h, 90d or 0", param, ctx)
        return timedelta(**{UNITS[found[2]]: int(found[1])}) if found else timedelta(0)


class Moment(click.ParamType[datetime]):
    """A moment: a date, a date and time (UTC unless it says otherwise), or a span from now."""

    name = "moment"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        if re.fullmatch(r"\d{1,6}[smhdw]", value):
            return datetime.now(UTC).replace(microsecond=0) + Span().convert(value, param, ctx)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is no moment; write 2027-01-31, 2027-01-31T12:00Z or 90d", param)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _placed(command: Command) -> Command:
    """Add the options that say where the keys are; the command gets a `Place`."""
    options = (
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
    )
    for option in reversed(options):
        command = option(command)
    return command


def _place(file: Path | None, pepper_file: Path | None) -> Place:
    from rayserve_platform.edge.keys.file import KeysInFile

    if file is None:
        raise click.UsageError(f"say where the keys are: --file, or {FILE_VARIABLE}")
    return KeysInFile(file, pepper_file)


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
    file follow its changes within two seconds.
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
@click.option("--expires", type=Moment(), help="When it ends: 90d, or 2027-01-31; default: never.")
@click.option("--not-before", type=Moment(), help="When it begins; default: now.")
@click.option("--note", default="", help="For people.")
@click.option("--json", "as_json", is_flag=True, help="Print the key and its attributes as JSON.")
def create(
    file: Path | None,
    pepper_file: Path | None,
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

    with _explained():
        key, token = _place(file, pepper_file).update(verb)
    _show_new(key, token, as_json=as_json)


@keys.command("list")
@_placed
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(file: Path | None, pepper_file: Path | None, as_json: bool) -> None:
    """List the keys: ids, owners, scopes, states. Never a digest."""
    with _explained():
        kept = _place(file, pepper_file).read()
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
def revoke(file: Path | None, pepper_file: Path | None, ids: tuple[str, ...], delete: bool) -> None:
    """End keys at once, by their ids (rsp_<ID>_…)."""
    from rayserve_platform.edge.keys import change

    def verb(kept: Any, _: Any) -> Any:
        for key_id in ids:
            kept = (change.remove if delete else change.revoke)(kept, _id(key_id))
        return kept, None

    with _explained():
        _place(file, pepper_file).update(verb)
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
def rotate(
    file: Path | None, pepper_file: Path | None, id_: str, overlap: timedelta, as_json: bool
) -> None:
    """Make a new key with the rights of an old one, which ends after a while."""
    from rayserve_platform.edge.keys import change

    now = datetime.now(UTC).replace(microsecond=0)

    def verb(kept: Any, pepper: Any) -> Any:
        after, key, token = change.rotate(kept, pepper(), _id(id_), now=now, overlap=overlap)
        return after, (key, token, change.find(after, _id(id_)))

    with _explained():
        key, token, old = _place(file, pepper_file).update(verb)
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
    for column in ("ID", "PRINCIPAL", "GROUPS", "MODELS", "PROTOCOLS", "STATE", "EXPIRES", "NOTE"):
        table.add_column(column, overflow="fold", no_wrap=column in ("ID", "STATE", "EXPIRES"))
    for key in listed:
        row = (
            key.id,
            key.principal,
            ", ".join(key.groups),
            "all" if key.models is None else ", ".join(key.models),
            "all" if key.protocols is None else ", ".join(key.protocols),
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
