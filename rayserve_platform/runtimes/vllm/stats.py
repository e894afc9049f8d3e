"""vLLM's metrics, twice: by their own names at `/metrics`, and through the platform's exporter."""

from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger

from rayserve_platform.core.metrics import MetricTypes

PARTS = ("_spec_decoding_cls", "_kv_connector_cls", "_ec_connector_cls", "_perf_metrics_cls")
"""Classes that vLLM's logger makes further metrics with."""


def stat_loggers(metrics: MetricTypes | None) -> list[Any] | None:
    """Return vLLM's stat loggers: its default alone, or with one that writes to `metrics`.

    Both must be named, since vLLM leaves its default out when it finds a subclass of it; and ours
    comes first, since each clears the registry of `prometheus_client` before it fills it.
    """
    if metrics is None:
        return None
    kinds = {
        "_counter_cls": metrics.counter,
        "_gauge_cls": metrics.gauge,
        "_histogram_cls": metrics.histogram,
    }
    parts = {
        name: type(f"Exported{name}", (getattr(PrometheusStatLogger, name),), dict(kinds))
        for name in PARTS
    }
    return [type("Exported", (PrometheusStatLogger,), {**kinds, **parts}), PrometheusStatLogger]
