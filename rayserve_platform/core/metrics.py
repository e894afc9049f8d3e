"""What an engine needs to publish its metrics, without knowing where they go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self


class Metric(Protocol):
    """A counter, gauge or histogram with `prometheus_client`'s way of calling."""

    def labels(self, *values: str, **named: str) -> Self:
        """Return the child for these label values."""
        ...


class MetricType(Protocol):
    """Makes a metric; the signature is `prometheus_client`'s."""

    def __call__(
        self, name: str, documentation: str, labelnames: Sequence[str] = (), **options: Any
    ) -> Metric:
        """Make one metric; a histogram takes `buckets`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricTypes:
    """The three kinds, as one exporter makes them."""

    counter: Any
    gauge: Any
    histogram: Any
