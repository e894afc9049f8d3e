"""What the suite found out about each server, and how it compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rayserve_platform.bench.processes import ProcessMemory
from rayserve_platform.bench.quantiles import ratio
from rayserve_platform.bench.samples import METRICS, LoadResult, RunResult

# What a model has done: texts read or, where it writes, tokens.
_WORK = ("texts_per_s", "output_tokens_per_s")


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One server's runs, pooled over the rounds; grows while the suite runs.

    `startup_s` is the time from each start to the first answer. `failures` says in which rounds it
    could not be measured and why. `memory` is that of the last round, after the load. `replicas` is
    how many of the server `one_replica` this one is.
    """

    name: str
    about: str
    part: str
    reference: str
    startup_s: list[float] = field(default_factory=list)
    runs: dict[str, list[RunResult]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    memory: tuple[ProcessMemory, ...] = ()
    replicas: int = 1
    one_replica: str | None = None

    def add(self, run: RunResult) -> None:
        """Pool a run with the earlier ones of the same load."""
        self.runs.setdefault(run.load, []).append(run)

    @property
    def loads(self) -> tuple[LoadResult, ...]:
        """The results per load, in the order they were first run."""
        return tuple(LoadResult(load=load, runs=tuple(runs)) for load, runs in self.runs.items())

    def load(self, label: str) -> LoadResult:
        """Return the result of one load, without runs if it wasn't measured."""
        return LoadResult(load=label, runs=tuple(self.runs.get(label, ())))

    @property
    def rss_mb(self) -> float | None:
        """The sum of all processes' resident memory in MB."""
        return sum(process.rss_mb for process in self.memory) if self.memory else None

    def as_json(self) -> dict[str, object]:
        """Return a JSON object of everything known."""
        return {
            "name": self.name,
            "about": self.about,
            "part": self.part,
            "reference": self.reference,
            "startup_s": self.startup_s,
            "failures": self.failures,
            "loads": [load.as_json() for load in self.loads],
            "rss_mb": self.rss_mb,
            "processes": [asdict(process) for process in self.memory],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server under one load: medians, and medians divided by the reference server's.

    `of_ceiling` is the share of the texts, or tokens, per second that the model does without a
    server. `scaling` is how many times as much as one replica these several do where each has cores
    of its own, by the CPU time that a row costs.
    """

    server: str
    reference: str
    result: LoadResult
    medians: Mapping[str, float | None]
    ratios: Mapping[str, float | None]
    of_ceiling: float | None
    scaling: float | None

    def as_json(self) -> dict[str, object]:
        """Return a JSON object of the comparison; what is unknown is left out."""
        return {
            "server": self.server,
            "reference": self.reference,
            "load": self.result.load,
            "medians": _known(self.medians),
            "ratios": _known(self.ratios),
            **_known({"of_ceiling": self.of_ceiling, "scaling": self.scaling}),
        }


def rows(outcomes: Sequence[Outcome], part: str, metrics: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a part, load by load, servers in their order.

    A ratio is None where the reference, or the ceiling, was not measured in the same suite.
    """
    chosen = [outcome for outcome in outcomes if outcome.part == part]
    by_name = {outcome.name: outcome for outcome in chosen}
    for label in dict.fromkeys(load for outcome in chosen for load in outcome.runs):
        for outcome in chosen:
            result = outcome.load(label)
            if not result.runs:
                continue
            medians = {metric: result.median(metric) for metric in metrics}
            other = by_name.get(outcome.reference)
            theirs = other.load(label) if other else LoadResult(load=label)
            yield Row(
                server=outcome.name,
                reference=outcome.reference,
                result=result,
                medians=medians,
                ratios={
                    metric: ratio(medians[metric], theirs.median(metric)) for metric in metrics
                },
                of_ceiling=_share(result, chosen),
                scaling=_scaling(outcome, by_name.get(outcome.one_replica or ""), label),
            )


def _share(result: LoadResult, outcomes: Sequence[Outcome]) -> float | None:
    """Return a load's texts or tokens per second divided by its ceiling's, whoever did that."""
    for outcome in outcomes:
        if result.ceiling in outcome.runs:
            highest = outcome.load(result.ceiling)
            shares = (ratio(result.median(name), highest.median(name)) for name in _WORK)
            return next((share for share in shares if share is not None), None)
    return None


def _scaling(outcome: Outcome, one: Outcome | None, label: str) -> float | None:
    """Return how many times one replica's rows per second several do, if cores are all they lack.

    n replicas have n times the cores, and of those a row takes what it costs all processes of the
    server: so what each replica adds beside its work counts, and what they share counts once.
    """
    if one is None:
        return None
    costs = [server.load(label).median("server_cpu_s") for server in (one, outcome)]
    times = ratio(*costs)
    return None if times is None else outcome.replicas * times


def comparisons(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Return the rows of every part as JSON objects, with every metric."""
    parts = dict.fromkeys(outcome.part for outcome in outcomes)
    return [row.as_json() for part in parts for row in rows(outcomes, part, METRICS)]


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
