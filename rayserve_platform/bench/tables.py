"""Results as tables to read on a terminal: medians over the runs, with lowest and highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table

from rayserve_platform.bench.outcome import Outcome, Row, rows
from rayserve_platform.bench.quantiles import Spread
from rayserve_platform.bench.samples import LoadResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A metric with its heading (units in it) and the factor from its unit to the one shown."""

    metric: str
    heading: str
    factor: float = 1.0


_MS = 1000.0
RATES = (
    Column(metric="requests_per_s", heading="requests/s"),
    Column(metric="texts_per_s", heading="texts/s"),
    Column(metric="output_tokens_per_s", heading="tokens/s"),
    Column(metric="events_per_s", heading="chunks/s"),
)
TIMES = (
    Column(metric="ttft_p50_s", heading="TTFT p50 ms", factor=_MS),
    Column(metric="ttft_p99_s", heading="TTFT p99 ms", factor=_MS),
    Column(metric="itl_p50_s", heading="ITL p50 ms", factor=_MS),
    Column(metric="itl_p99_s", heading="ITL p99 ms", factor=_MS),
    Column(metric="tpot_p50_s", heading="TPOT p50 ms", factor=_MS),
    Column(metric="latency_p50_s", heading="latency p50 ms", factor=_MS),
    Column(metric="latency_p99_s", heading="latency p99 ms", factor=_MS),
)
ROWS = Column(metric="texts_per_s", heading="rows/s")
CPU = Column(metric="server_cpu_s", heading="server CPU ms/row", factor=_MS)
CHECK = Column(metric="server_cpu_s", heading="CPU us/each", factor=1e6)
_GENERATION = (RATES[2], *TIMES[:5], RATES[0], TIMES[5], TIMES[6])
# The first so many stand in the short table, all in the full one.
_PART_COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "llm": _GENERATION,
    "overhead": (RATES[0], RATES[3], TIMES[5], TIMES[6]),
    "caikit": (RATES[0], RATES[1], TIMES[5], TIMES[6]),
    "tgis": (RATES[2], TIMES[0], TIMES[5], TIMES[6], RATES[0], *TIMES[1:5]),
    "v2": (ROWS, CPU, TIMES[5], TIMES[6]),
    "genai": _GENERATION,
    "auth": (RATES[0], CHECK, TIMES[5], TIMES[6]),
}
_SHORT_COLUMNS = 4
_PART_TITLES = {
    "llm": "LLM: medians (and ratio to vLLM's own server)",
    "overhead": "Cost of our own layer: medians (and ratio to the bare Ray Serve app)",
    "caikit": "Embeddings: medians (and ratio to the real Caikit runtime)",
    "tgis": "TGIS's Generate and GenerateStream: medians (and ratio to vLLM's own OpenAI server, "
    "which stands for vllm-tgis-adapter: that one needs an older vLLM)",
    "v2": "KServe v2 inference: medians (and ratio to KServe's own Python server); a request has "
    "one row, in process it has a batch",
    "genai": "LLM on OpenVINO GenAI: medians (and ratio to vLLM's own server), and share of the "
    "tokens/s of GenAI's own pipeline",
    "auth": "Token checks: medians (and ratio to the ingress without them); of one check by itself "
    "to the most that it may cost, which stands in the first row",
}
_SCALING = (
    "Times one replica, by CPU: how many times as much as one replica several do where each has "
    "cores of its own: their number, times one's server CPU per row, divided by theirs."
)
_LEGEND = (
    "TTFT: first content after the request; ITL: gap between streamed chunks; TPOT: time per "
    "output token after the first. Times are of successful requests only."
)


def load_table(loads: Sequence[LoadResult]) -> RenderableType:
    """Return a table with one column per load; metrics that nobody measured are left out."""
    runs = max((len(load.runs) for load in loads), default=0)
    table = Table(title=f"medians of {runs} runs (lowest - highest)", title_justify="left")
    table.add_column("")
    for load in loads:
        table.add_column(load.load, justify="right")
    for column in (*RATES, *TIMES):
        cells = [_spread(load.spread(column.metric), column.factor) for load in loads]
        if any(cells):
            table.add_row(column.heading, *cells)
    table.add_row("client CPU %", *(_percent(load.median("client_cpu")) for load in loads))
    table.add_row("errors", *(errors_text(load.errors) for load in loads))
    return Group(table, *_notes(loads))


def suite_tables(outcomes: Sequence[Outcome], *, full: bool = True) -> RenderableType:
    """Return the tables of a suite: one per part, then memory, then what failed.

    Full tables need about 200 characters of width; short ones leave columns out.
    """
    parts = [part for part in _PART_COLUMNS if any(known.part == part for known in outcomes)]
    loads = [load for outcome in outcomes for load in outcome.loads]
    failures = [
        f"{outcome.name}: {failure}" for outcome in outcomes for failure in outcome.failures
    ]
    return Group(
        *(_part_table(outcomes, part, full=full) for part in parts),
        *_notes(loads),
        memory_table(outcomes),
        *(f"FAILED {failure}" for failure in failures),
    )


def _part_table(outcomes: Sequence[Outcome], part: str, *, full: bool) -> Table:
    columns = _PART_COLUMNS[part] if full else _PART_COLUMNS[part][:_SHORT_COLUMNS]
    found = list(rows(outcomes, part, [column.metric for column in columns]))
    table = Table(title=_PART_TITLES[part], title_justify="left")
    table.add_column("load")
    table.add_column("server", no_wrap=True)
    table.add_column("runs", justify="right")
    for column in columns:
        table.add_column(column.heading.replace(" ", "\n", 1), justify="right", no_wrap=True)
    ceiling = any(row.of_ceiling is not None for row in found)
    if ceiling:
        table.add_column("of the model\nin process", justify="right")
    scaling = any(row.scaling is not None for row in found)
    if scaling:
        table.add_column("times one\nreplica, by CPU", justify="right")
        table.caption, table.caption_justify = _SCALING, "left"
    table.add_column("client\nCPU %", justify="right")
    table.add_column("driver")
    table.add_column("errors")
    previous = None
    for row in found:
        if previous not in (None, row.result.load):
            table.add_section()
        table.add_row(*_cells(row, columns, ceiling=ceiling, scaling=scaling), end_section=False)
        previous = row.result.load
    return table


def _cells(row: Row, columns: Sequence[Column], *, ceiling: bool, scaling: bool) -> list[str]:
    result = row.result
    return [
        result.load,
        row.server,
        str(len(result.runs)),
        *(_with_ratio(row, column) for column in columns),
        *([_share(row.of_ceiling)] if ceiling else ()),
        *([_share(row.scaling)] if scaling else ()),
        _percent(result.median("client_cpu")),
        "/".join(sorted({run.driver for run in result.runs})),
        errors_text(result.errors),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _with_ratio(row: Row, column: Column) -> str:
    value, ratio = row.medians[column.metric], row.ratios[column.metric]
    if value is None:
        return ""
    shown = number(value * column.factor)
    return shown if ratio is None else f"{shown} ({ratio:.2f})"


def memory_table(outcomes: Sequence[Outcome]) -> Table:
    """Return the resident memory of each server's processes and its time to start."""
    table = Table(
        title="Memory after the load: RSS in MB of every process (shared pages count in each)",
        title_justify="left",
    )
    table.add_column("server")
    table.add_column("first answer after s", justify="right")
    table.add_column("process", overflow="fold")
    table.add_column("RSS MB", justify="right")
    for outcome in outcomes:
        if not outcome.memory:
            continue
        started = _spread_of(outcome.startup_s)
        table.add_row(outcome.name, started, "all processes", number(outcome.rss_mb or 0.0))
        for process in outcome.memory:
            table.add_row("", "", f"  {process.name}", number(process.rss_mb))
        table.add_section()
    return table


def _notes(loads: Sequence[LoadResult]) -> list[str]:
    notes = []
    if any(load.median("tpot_p50_s") is not None for load in loads):
        notes.append(_LEGEND)
    if any(load.counts_chunks for load in loads):
        notes.append("The server sent no usage for some answers: their tokens are counted chunks.")
    return notes


def number(value: float) -> str:
    """Return a value with three significant digits, whole from a hundred on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def errors_text(errors: Mapping[str, int]) -> str:
    """Return the errors by kind, a dash when there are none."""
    return ", ".join(f"{kind} x{count}" for kind, count in sorted(errors.items())) or "-"


def _spread(found: Spread | None, factor: float) -> str:
    if found is None:
        return ""
    low, high = number(found.low * factor), number(found.high * factor)
    return f"{number(found.median * factor)} ({low} - {high})"


def _spread_of(values: Sequence[float]) -> str:
    return ", ".join(number(value) for value in values)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.0f}"
