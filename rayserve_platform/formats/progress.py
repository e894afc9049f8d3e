"""How a long job tells a person how far it is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

Report = Callable[[str, float], None]
"""Called with a phase ("reading") and the part of it that is done, from 0 to 1."""


def unheard(phase: str, fraction: float) -> None:
    """A report that nobody reads."""


@contextmanager
def progress_reporter(stream: TextIO | None = None) -> Iterator[Report]:
    """Yield a report: one bar a phase on a terminal, one line a phase elsewhere.

    Nothing is written before the first report, so a job with nothing to do stays silent.

    Args:
        stream: where to write; standard error by default.
    """
    out = sys.stderr if stream is None else stream
    if out.isatty():
        with _bars(out) as report:
            yield report
    else:
        yield _lines(out)


@contextmanager
def _bars(out: TextIO) -> Iterator[Report]:
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(file=out),
    )
    tasks: dict[str, TaskID] = {}

    def report(phase: str, fraction: float) -> None:
        if phase not in tasks:
            for task in tasks.values():  # a new phase means that the ones before it are over
                bars.update(task, total=1.0, completed=1.0)
            bars.start()
            tasks[phase] = bars.add_task(phase, total=None)  # a bar without a total moves by itself
        if fraction > 0.0:
            bars.update(tasks[phase], total=1.0, completed=fraction)

    try:
        yield report
    finally:
        bars.stop()


def _lines(out: TextIO) -> Report:
    seen: set[str] = set()

    def report(phase: str, fraction: float) -> None:  # noqa: ARG001 - a line has no bar to fill
        if phase not in seen:
            seen.add(phase)
            print(f"model: {phase}", file=out, flush=True)

    return report
