"""TGIS's own metrics, `tgi_*`: the names that its dashboards ask for.

Source of names and labels: the original router (`router/src/{server,batcher,grpc_server}.rs`), and
of those that OpenShift AI's dashboards query, opendatahub-io/odh-model-controller
(`internal/controller/constants/runtime-metrics.go`). They ask for counters without `_total`, a
suffix that `prometheus_client` cannot leave out; so each counter is exported under both names, as
the original does.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from rayserve_platform.core.errors import Code
from rayserve_platform.core.messages import Chunk
from rayserve_platform.pb.generation_pb2 import StopReason

Kind = Literal["single", "batch", "stream"]

SECONDS = tuple(round(0.0001 * 1.5**k, 10) for k in range(1, 36))
"""The original's."""
TOKENS = tuple(float(2**k) for k in range(18))
"""The original divides the model's length by 64; ours are the same for every model."""

FAILURES = {
    Code.INVALID_ARGUMENT: "validation",
    Code.UNIMPLEMENTED: "validation",
    Code.NOT_FOUND: "validation",
    Code.RESOURCE_EXHAUSTED: "conc_limit",
    Code.DEADLINE_EXCEEDED: "timeout",
}
"""By code; anything else is `generate`."""


class BothNames(Collector):
    """Exports a registry's counters with and without `_total`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Return every family, and each counter once more under its plain name."""
        for family in self._registry.collect():
            yield family
            if family.type == "counter":
                # `counter` would be written with the suffix in its head.
                plain = Metric(family.name, family.documentation, "unknown")
                for sample in family.samples:
                    if sample.name.endswith("_total"):
                        plain.add_sample(family.name, sample.labels, sample.value)
                yield plain


class TgisMetrics:
    """What this protocol counts. `registry` is where it is exported."""

    def __init__(self, registry: CollectorRegistry) -> None:
        own = CollectorRegistry(auto_describe=True)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"tgi_{name}", text, buckets=SECONDS, registry=own)

        def tokens(name: str, text: str) -> Histogram:
            return Histogram(f"tgi_{name}", text, buckets=TOKENS, registry=own)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tgi_{name}", text, labels, registry=own)

        self.requests = counter("request_count", "Calls of Generate and GenerateStream.", "kind")
        self.inputs = counter("request_input_count", "Prompts of those calls.")
        self.successes = counter("request_success", "Prompts answered.", "stop_reason", "kind")
        self.failures = counter("request_failure", "Calls that failed.", "err")
        self.tokenized = counter("tokenize_request_count", "Calls of Tokenize.")
        self.tokenized_inputs = counter("tokenize_request_input_count", "Texts of those calls.")
        self.duration = seconds("request_duration", "Seconds from a call to its answer.")
        self.inference = seconds("request_inference_duration", "The part after the queue.")
        self.queued = seconds("request_queue_duration", "The part in the engine's queue.")
        self.validation = seconds("request_validation_duration", "The part before the engine.")
        self.per_token = seconds(
            "request_mean_time_per_token_duration", "Inference over generated tokens."
        )
        self.tokenize_duration = seconds("tokenize_request_duration", "Seconds for a Tokenize.")
        self.input_length = tokens("request_input_length", "Input tokens of a prompt.")
        self.max_new_tokens = tokens("request_max_new_tokens", "New tokens allowed to it.")
        self.generated_tokens = tokens("request_generated_tokens", "New tokens it got.")
        self.total_tokens = tokens("request_total_tokens", "Both together.")
        self.tokenize_tokens = tokens("tokenize_request_tokens", "Tokens of a text.")
        self.waiting = Gauge(
            "tgi_queue_size", "Prompts accepted here and not yet with the engine.", registry=own
        )
        self.running = Gauge("tgi_batch_current_size", "Prompts with the engine.", registry=own)
        registry.register(BothNames(own))

    @contextmanager
    def call(self, kind: Kind, prompts: int) -> Iterator[float]:
        """Count a call of Generate or GenerateStream; yields when it began."""
        self.requests.labels(kind).inc()
        self.inputs.inc(prompts)
        self.waiting.inc(prompts)
        answered = False
        try:
            yield time.monotonic()
            answered = True
        except Exception:
            answered = True  # `failed` counts what is answered with an error
            raise
        finally:
            self.waiting.dec(prompts)
            if not answered:
                self.failures.labels("cancelled").inc()

    @contextmanager
    def engine(self) -> Iterator[None]:
        """Hold a prompt in the gauge of those with the engine."""
        self.waiting.dec()
        self.running.inc()
        try:
            yield
        finally:
            self.running.dec()
            self.waiting.inc()

    def failed(self, code: Code) -> None:
        """Count a call that is answered with an error."""
        self.failures.labels(FAILURES.get(code, "generate")).inc()

    def succeeded(
        self,
        kind: Kind,
        *,
        first: Chunk,
        stop_reason: int,
        generated: int,
        max_new_tokens: int,
        began: float,
        sent: float,
    ) -> None:
        """Record an answered prompt.

        Args:
            kind: of its call.
            first: the chunk that tells of the prompt.
            stop_reason: of its last chunk.
            generated: new tokens.
            max_new_tokens: as many were allowed.
            began: when the call began, by `time.monotonic()`.
            sent: when the prompt went to the engine.
        """
        prompt = first.prompt
        input_tokens = prompt.token_count if prompt is not None else 0
        queued_s = (prompt.queued_s if prompt is not None else None) or 0.0
        ended = time.monotonic()
        inference_s = max(0.0, ended - sent - queued_s)
        self.successes.labels(StopReason.Name(stop_reason), kind).inc()
        self.duration.observe(ended - began)
        self.validation.observe(sent - began)
        self.queued.observe(queued_s)
        self.inference.observe(inference_s)
        self.per_token.observe(inference_s / max(1, generated))
        self.input_length.observe(input_tokens)
        self.max_new_tokens.observe(max_new_tokens)
        self.generated_tokens.observe(generated)
        self.total_tokens.observe(input_tokens + generated)


@cache
def exported() -> TgisMetrics:
    """Return the metrics of this process, exported from the first call on."""
    return TgisMetrics(REGISTRY)
