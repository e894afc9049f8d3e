"""What one request and one run measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rayserve_platform.bench.quantiles import Spread, percentile, spread

FROM_USAGE = "usage"
FROM_CHUNKS = "chunks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request: times in seconds from when it was due, `error` its kind or None on success."""

    latency_s: float
    error: str | None = None
    ttft_s: float | None = None
    gaps_s: tuple[float, ...] = ()
    events: int = 0
    output_tokens: int | None = None
    tokens_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One run of one load. Rates are per second of the run; failed requests count in `errors` only.

    `tokens_from` says whether token counts are the server's own (`usage`) or counted chunks.
    `texts_per_s` counts the texts that a model read, where that is what is measured; `ceiling` is
    the load with which the model did the same work without a server. `server_cpu_s` is the CPU time
    of all the server's processes by request (in process: by text or row). `client_cpu` is the share
    of one core the load generator itself used (None when unknown).
    """

    load: str
    driver: str
    elapsed_s: float
    succeeded: int
    errors: Mapping[str, int]
    tokens_from: str | None = None
    client_cpu: float | None = None
    ceiling: str | None = None
    requests_per_s: float | None = None
    texts_per_s: float | None = None
    output_tokens_per_s: float | None = None
    events_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    itl_p50_s: float | None = None
    itl_p99_s: float | None = None
    tpot_p50_s: float | None = None
    latency_p50_s: float | None = None
    latency_p99_s: float | None = None
    server_cpu_s: float | None = None


# The numeric fields of a run, in the order they are reported.
METRICS: tuple[str, ...] = (
    "requests_per_s",
    "texts_per_s",
    "output_tokens_per_s",
    "events_per_s",
    "ttft_p50_s",
    "ttft_p99_s",
    "itl_p50_s",
    "itl_p99_s",
    "tpot_p50_s",
    "latency_p50_s",
    "latency_p99_s",
    "server_cpu_s",
    "client_cpu",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """All runs of one load against one server."""

    load: str
    runs: tuple[RunResult, ...] = field(default=())

    def spread(self, metric: str) -> Spread | None:
        """Return the median, lowest and highest value of a metric over the runs."""
        return spread(getattr(run, metric) for run in self.runs)

    def median(self, metric: str) -> float | None:
        """Return the median of a metric over the runs, None when no run measured it."""
        found = self.spread(metric)
        return found.median if found else None

    @property
    def errors(self) -> Mapping[str, int]:
        """Failed requests of all runs by kind."""
        total: Counter[str] = Counter()
        for run in self.runs:
            total.update(run.errors)
        return dict(total)

    @property
    def counts_chunks(self) -> bool:
        """Whether any token count comes from chunks, as the server sent no usage."""
        return any(run.tokens_from == FROM_CHUNKS for run in self.runs)

    @property
    def ceiling(self) -> str | None:
        """The load of the bare model that this one is compared with."""
        return self.runs[0].ceiling if self.runs else None

    def as_json(self) -> dict[str, object]:
        """Return a JSON object with the runs and, per metric, their spread."""
        spreads = {metric: self.spread(metric) for metric in METRICS}
        return {
            "load": self.load,
            "errors": self.errors,
            "runs": [asdict(run) for run in self.runs],
            "spread": {metric: asdict(found) for metric, found in spreads.items() if found},
        }


def summarise(
    samples: Sequence[Sample],
    *,
    load: str,
    driver: str,
    elapsed_s: float,
    client_cpu: float | None,
) -> RunResult:
    """Turn the samples of one run that took `elapsed_s` into its result."""
    good = [sample for sample in samples if sample.error is None]
    ttft = [sample.ttft_s for sample in good if sample.ttft_s is not None]
    gaps = [gap for sample in good for gap in sample.gaps_s]
    tpot = [value for sample in good if (value := time_per_token(sample)) is not None]
    latency = [sample.latency_s for sample in good]
    tokens = [sample.output_tokens for sample in good if sample.output_tokens is not None]
    sources = {sample.tokens_from for sample in good}
    return RunResult(
        load=load,
        driver=driver,
        elapsed_s=elapsed_s,
        succeeded=len(good),
        errors=dict(Counter(sample.error for sample in samples if sample.error)),
        tokens_from=FROM_CHUNKS if FROM_CHUNKS in sources else (FROM_USAGE if tokens else None),
        client_cpu=client_cpu,
        requests_per_s=_rate(len(good), elapsed_s),
        output_tokens_per_s=_rate(sum(tokens), elapsed_s),
        events_per_s=_rate(sum(sample.events for sample in good), elapsed_s),
        ttft_p50_s=percentile(ttft, 50),
        ttft_p99_s=percentile(ttft, 99),
        itl_p50_s=percentile(gaps, 50),
        itl_p99_s=percentile(gaps, 99),
        tpot_p50_s=percentile(tpot, 50),
        latency_p50_s=percentile(latency, 50),
        latency_p99_s=percentile(latency, 99),
    )


def time_per_token(sample: Sample) -> float | None:
    """Return seconds per output token after the first: unlike gaps, blind to how tokens bunch."""
    if sample.ttft_s is None or not sample.output_tokens or sample.output_tokens < 2:
        return None
    return (sample.latency_s - sample.ttft_s) / (sample.output_tokens - 1)


def _rate(count: int, elapsed_s: float) -> float | None:
    return count / elapsed_s if count and elapsed_s > 0 else None
