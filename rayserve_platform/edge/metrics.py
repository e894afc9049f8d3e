"""`prometheus_client`'s way of calling, on Ray's metrics: the way into Ray's Prometheus export.

Ray exports a metric of every process from the node's agent, under the prefix `ray_`; Serve adds the
labels `application`, `deployment` and `replica`. Ray allows no colon in a name: `vllm:x` becomes
`vllm_x`.
"""

import re
from collections.abc import Sequence
from typing import Any, Self

from ray.serve import metrics as ray_metrics

from rayserve_platform.core.metrics import MetricTypes


class RayMetric:
    """Base of the three kinds. `labels` returns a child that keeps its label values."""

    kind: Any = None

    def __init__(
        self,
        name: str,
        documentation: str = "",
        labelnames: Sequence[str] = (),
        *,
        buckets: Sequence[float] | None = None,
        **_: Any,
    ) -> None:
        options: dict[str, Any] = {"boundaries": list(buckets)} if buckets else {}
        self._names = tuple(labelnames)
        self._tags: dict[str, str] = {}
        self._metric = self.kind(
            re.sub(r"[^a-zA-Z0-9_]", "_", name),
            description=documentation,
            tag_keys=self._names,
            **options,
        )

    def labels(self, *values: object, **named: object) -> Self:
        """Return the child for these label values."""
        found = dict(zip(self._names, values, strict=False)) | named
        child = object.__new__(type(self))
        child._names = self._names
        child._metric = self._metric
        child._tags = {name: str(value) for name, value in found.items()}
        return child


class RayCounter(RayMetric):
    """A count that only grows."""

    kind = ray_metrics.Counter

    def inc(self, value: float = 1.0) -> None:
        """Add `value`; Ray refuses to add nothing."""
        if value:
            self._metric.inc(value, tags=self._tags)


class RayGauge(RayMetric):
    """A value that goes up and down."""

    kind = ray_metrics.Gauge

    def set(self, value: float) -> None:
        """Set the value."""
        self._metric.set(value, tags=self._tags)

    def set_to_current_time(self) -> None:
        """Set to Unix seconds."""
        import time

        self.set(time.time())


class RayHistogram(RayMetric):
    """A distribution over fixed buckets."""

    kind = ray_metrics.Histogram

    def observe(self, value: float) -> None:
        """Record one value; Ray refuses negative ones, which a clock step can make."""
        self._metric.observe(max(value, 0.0), tags=self._tags)


RAY_METRICS = MetricTypes(counter=RayCounter, gauge=RayGauge, histogram=RayHistogram)
