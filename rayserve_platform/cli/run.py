"""`rayserve run`: a Serve config in the foreground, on this machine."""

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rayserve_platform.bench.ports import free_port
from rayserve_platform.cli import announce
from rayserve_platform.cli.config import checked, http_address, rpc_port
from rayserve_platform.cli.drain import drain
from rayserve_platform.cli.starting import start

DRAIN_VARIABLE = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
FALLBACK_VARIABLES = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")
CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--http-port", type=click.IntRange(1, 65535), help="Instead of the config's own.")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Instead of the config's own.")
@click.option("--timeout", default=900.0, show_default=True, help="Seconds to wait for readiness.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds that running requests have to finish after Ctrl-C or SIGTERM.",
)
@click.option(
    "--dashboard/--no-dashboard",
    default=False,
    show_default=True,
    help="Start Ray's dashboard too, some 3 s: `serve status`, `serve deploy` and Ray's list of "
    "targets for Prometheus need it.",
)
@click.option(
    "--network",
    is_flag=True,
    help="Let Ray's own processes listen to the network, for nodes on other machines to join. "
    "Close their ports to everybody else: see SECURITY.md.",
)
@click.option("--verbose", is_flag=True, help="Show what the replicas print.")
def run(
    config: Path,
    *,
    http_port: int | None,
    grpc_port: int | None,
    timeout: float,
    grace: float,
    dashboard: bool,
    network: bool,
    verbose: bool,
) -> None:
    """Serve CONFIG on a Ray cluster of its own until Ctrl-C.

    Checks the config, prepares its models, starts Ray and Serve, waits until every application
    answers, and prints a request to try. `serve run CONFIG` does the same without the comforts.
    """
    _environment(network=network, verbose=verbose)
    found = checked(config)
    content = _with_ports(found.content, http_port, grpc_port)
    _need_free_ports(content)
    _prepare_models(found.args)
    stop = _on_signals()
    with _serving(content, dashboard=dashboard) as before_stop:
        if not _wait(found, content, timeout, stop):
            return
        _announce(found, content)
        stop.wait()
        click.echo(f"\nStopping: running requests get up to {grace:g} s (Ctrl-C again: none) …")
        behind = {app["name"] for app in content["applications"]} - set(found.routed)
        before_stop.callback(drain, behind, grace)
    click.echo("Stopped.")


def _with_ports(
    content: dict[str, Any], http_port: int | None, grpc_port: int | None
) -> dict[str, Any]:
    changed = dict(content)
    for key, port in (("http_options", http_port), ("grpc_options", grpc_port)):
        if port is not None:
            changed[key] = {**(content.get(key) or {}), "port": port}
    return changed


def _need_free_ports(content: dict[str, Any]) -> None:
    """Refuse to start where something listens already; Serve would answer on neither."""
    host, http_port = http_address(content)
    for port in (http_port, rpc_port(content)):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                raise click.ClickException(
                    f"port {port} is taken by another program; stop it, or choose another with "
                    f"{'--http-port' if port == http_port else '--grpc-port'}"
                )


def _prepare_models(args: dict[str, Any]) -> None:
    """Make the models of packages now, with a progress bar, rather than in a silent replica."""
    from rayserve_platform.core.errors import PlatformError
    from rayserve_platform.formats.progress import progress_reporter
    from rayserve_platform.formats.source import resolve
    from rayserve_platform.settings.app import App

    for name, app in args.items():
        for source in app.made_sources() if isinstance(app, App) else ():
            try:
                with progress_reporter() as report:
                    resolve(source, report=report)
            except PlatformError as error:
                raise click.ClickException(f"{name}: {error.message}") from None


def _environment(*, network: bool, verbose: bool) -> None:
    """Set what Ray reads from its environment when it is imported; what is set already stays."""
    # Every replica opens a port that unpickles what it is sent: never without a token.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Named after the systems where it is Ray's own default: the cluster's address is the loopback.
    os.environ.setdefault(CLUSTER_VARIABLE, "1" if network else "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_LOG_TO_DRIVER", "1" if verbose else "0")
    # Ray runs its workers at niceness 15, as if other work on the machine mattered more.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Serve's 5 s for a proxy to come up are short on a small or busy machine.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # Where HAProxy sends requests while no replica is there: fixed by default, and so another
    # cluster's on this machine, whose models would answer.
    for name in FALLBACK_VARIABLES:
        os.environ.setdefault(name, str(free_port()))
    # On HAProxy an ingress replica drains at least 30 s, for load balancers that this run hasn't.
    os.environ.setdefault(DRAIN_VARIABLE, "1")


def _on_signals() -> threading.Event:
    """Return an event that the first Ctrl-C or SIGTERM sets; a second one interrupts."""
    stop = threading.Event()

    def handle(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop


@contextlib.contextmanager
def _serving(content: dict[str, Any], *, dashboard: bool) -> Iterator[contextlib.ExitStack]:
    """Start Ray, Serve and the config's applications, and stop all of it in the end.

    Yields what is done before that.
    """
    import ray
    from ray import serve

    click.echo("Starting Ray and Serve …")
    before_stop = contextlib.ExitStack()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            start(content, dashboard=dashboard)
        except Exception as error:
            raise click.ClickException(f"Ray did not start: {error}") from error
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield before_stop
    finally:
        try:
            before_stop.close()
            if ray.is_initialized():  # else it would start Ray, to look for Serve there
                serve.shutdown()
        except KeyboardInterrupt:
            click.echo("Stopping at once.")
        except Exception as error:  # noqa: BLE001  # the cluster ends all the same
            click.secho(f"Serve did not stop cleanly: {error}", fg="yellow", err=True)
        ray.shutdown()


def _wait(found: Any, content: dict[str, Any], timeout: float, stop: threading.Event) -> bool:
    """Wait until every application runs and every route answers; say what is going on.

    Returns:
        False when the user stopped it first.

    Raises:
        click.ClickException: when an application fails, or time is up.
    """
    from ray import serve
    from rich.console import Console

    began = time.monotonic()
    pending = list(found.routed.values())
    said: set[str] = set()
    console = Console(stderr=True)
    with console.status("Loading …") as line:
        while time.monotonic() - began < timeout:
            status = serve.status().applications
            for name, app in status.items():
                if app.status in FAILED and app.message:
                    raise click.ClickException(_failure(name, app))
                for message in _troubles(app) - said:
                    said.add(message)
                    console.print(f"{name}: {message}", style="yellow", markup=False)
            waiting = [name for name, app in status.items() if app.status != "RUNNING"]
            line.update(
                f"Loading {', '.join(waiting) or 'routes'} … {time.monotonic() - began:.0f} s"
            )
            if not waiting:
                pending = [app for app in pending if not announce.answers(_base(content, app))]
                if not pending:
                    return True
            if stop.wait(0.3):
                return False
    raise click.ClickException(f"not ready after {timeout:.0f} s; see {_log_folder()}")


def _troubles(app: Any) -> set[str]:
    """Return what Serve says of deployments that don't come up: no room on the cluster, mostly."""
    return {
        " ".join(deployment.message.split())
        for deployment in app.deployments.values()
        if deployment.message and deployment.status == "UPDATING"
    }


def _failure(name: str, app: Any) -> str:
    """Explain a failed application from Serve's own messages."""
    messages = [app.message, *(d.message for d in app.deployments.values() if d.message)]
    text = max(messages, key=len).strip()
    return f"application '{name}' failed:\n{text}\nLogs: {_log_folder()}"


def _log_folder() -> str:
    return str(
        Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray/session_latest/logs/serve"
    )


def _base(content: dict[str, Any], app: dict[str, Any]) -> str:
    """Return the URL of an application, as a client on this machine reaches it."""
    host, port = http_address(content)
    return f"http://{host}:{port}{(app.get('route_prefix') or '/').rstrip('/')}"


def _announce(found: Any, content: dict[str, Any]) -> None:
    """Print where the models are, and a request that works."""
    click.echo()
    for app in found.routed.values():
        args = found.args.get(app["name"])
        if args is not None and args.ingress.auth is not None:
            click.echo(f"ready, for whoever has a token: {_base(content, app)}")
            continue
        protocols = args.ingress.protocols if args is not None else ()
        for line in announce.lines(_base(content, app), protocols):
            click.echo(line)
    grpc_port = rpc_port(content)
    if grpc_port:
        click.echo(f"gRPC: {http_address(content)[0]}:{grpc_port}.  Ctrl-C stops.")
