"""Results as PNG charts; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rayserve_platform.bench.inference import LOADS, NAMES
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.samples import LoadResult
from rayserve_platform.bench.tables import Column, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_WIDTH = 13  # characters of a load's name in one line

# (title, one group of bars per load) -> the named series of loads to draw.
Series = Sequence[tuple[str, Sequence[LoadResult]]]

_LLM = (
    Column(metric="output_tokens_per_s", heading="output tokens/s"),
    Column(metric="ttft_p50_s", heading="time to first token p50, ms", factor=1000),
    Column(metric="itl_p99_s", heading="inter-token latency p99, ms", factor=1000),
)
_GENAI = tuple(replace(column, heading=f"GenAI: {column.heading}") for column in _LLM)
_OVERHEAD = (
    Column(metric="requests_per_s", heading="requests/s"),
    Column(metric="events_per_s", heading="streamed chunks/s"),
)
_CAIKIT = (
    Column(metric="texts_per_s", heading="texts/s"),
    Column(metric="latency_p50_s", heading="request latency p50, ms", factor=1000),
    Column(metric="latency_p99_s", heading="request latency p99, ms", factor=1000),
)
_TGIS = (
    Column(metric="output_tokens_per_s", heading="TGIS: output tokens/s"),
    Column(metric="ttft_p50_s", heading="TGIS: time to first token p50, ms", factor=1000),
    Column(metric="latency_p50_s", heading="TGIS: request latency p50, ms", factor=1000),
)
_V2 = (
    Column(metric="requests_per_s", heading="requests/s"),
    Column(metric="server_cpu_s", heading="server CPU per request, ms", factor=1000),
    Column(metric="latency_p99_s", heading="request latency p99, ms", factor=1000),
)
_AUTH = (
    Column(metric="requests_per_s", heading="token checks: requests/s"),
    Column(
        metric="server_cpu_s", heading="token checks: CPU of a request, of a check, us", factor=1e6
    ),
)
_PARTS = {
    "llm": _LLM,
    "overhead": _OVERHEAD,
    "caikit": _CAIKIT,
    "tgis": _TGIS,
    "genai": _GENAI,
    "auth": _AUTH,
}
_LOAD = (
    Column(metric="requests_per_s", heading="requests/s"),
    Column(metric="output_tokens_per_s", heading="output tokens/s"),
    Column(metric="events_per_s", heading="streamed chunks/s"),
    Column(metric="ttft_p50_s", heading="time to first token p50, ms", factor=1000),
    Column(metric="latency_p50_s", heading="request latency p50, ms", factor=1000),
)


def draw_load(loads: Sequence[LoadResult], title: str, path: Path) -> None:
    """Draw the metrics of one server under several loads to a PNG file."""
    series = [(title, loads)]
    _draw([(column, series) for column in _LOAD], path)


def draw_suite(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw all servers side by side, one chart per metric, to a PNG file."""
    panels: list[tuple[Column, Series]] = []
    for part, columns in _PARTS.items():
        series = [(known.name, known.loads) for known in outcomes if known.part == part]
        panels += [(column, series) for column in columns]
    _draw(panels + _v2_panels(outcomes), path)


def _v2_panels(outcomes: Sequence[Outcome]) -> list[tuple[Column, Series]]:
    """Return the servers' panels for each model; beside the bare models no bar could be seen."""
    panels: list[tuple[Column, Series]] = []
    for model in NAMES:
        labels = {load.label for load in LOADS if load.model == model}
        listed = (
            (known.name, [load for load in known.loads if load.load in labels])
            for known in outcomes
            if known.part == "v2"
        )
        series = [(name, loads) for name, loads in listed if loads]
        for column in _V2:
            heading = f"KServe v2, {model}: {column.heading}"
            panels.append((replace(column, heading=heading), series))
    return panels


def _draw(panels: Sequence[tuple[Column, Series]], path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = [(column, series) for column, series in panels if _labels(column, series)]
    if not drawn:
        return
    bars = max(len(_labels(column, series)) * len(series) for column, series in drawn)
    figure = Figure(figsize=(max(9.0, bars * 0.4), 3.4 * len(drawn)), layout="constrained")
    axes = figure.subplots(len(drawn), 1, squeeze=False)
    for axis, (column, series) in zip(axes[:, 0], drawn, strict=True):
        _draw_panel(axis, column, series)
    figure.savefig(path, dpi=120)


def _draw_panel(axis: Axes, column: Column, series: Series) -> None:
    labels = _labels(column, series)
    width = 0.8 / len(series)
    for place, (name, loads) in enumerate(series):
        found = {load.load: load.spread(column.metric) for load in loads}
        bars = [(at, got) for at, label in enumerate(labels) if (got := found.get(label))]
        if not bars:
            continue
        low = [(got.median - got.low) * column.factor for _, got in bars]
        high = [(got.high - got.median) * column.factor for _, got in bars]
        medians = [got.median * column.factor for _, got in bars]
        drawn = axis.bar(
            [at + (place - (len(series) - 1) / 2) * width for at, _ in bars],
            medians,
            width * 0.92,
            yerr=[low, high],
            error_kw={"linewidth": 0.8},
            label=name,
        )
        axis.bar_label(drawn, labels=[number(value) for value in medians], fontsize=7, padding=2)
    axis.set_title(f"{column.heading} (median; whiskers: lowest and highest run)", fontsize=10)
    axis.margins(y=0.12)
    shown = [fill(label, _LABEL_WIDTH) for label in labels]
    axis.set_xticks(range(len(labels)), shown, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    lines = 1 + max(label.count("\n") for label in shown)
    below: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, -0.03 - 0.07 * lines),
        "frameon": False,
    }
    axis.legend(fontsize=7, ncols=min(len(series), 5), **below)


def _labels(column: Column, series: Series) -> list[str]:
    """Return the loads for which anyone measured the metric, in order, each once."""
    return list(
        dict.fromkeys(
            load.load
            for _, loads in series
            for load in loads
            if load.spread(column.metric) is not None
        )
    )
