"""`tgi_*`: the names that dashboards ask for, and what is counted under them."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rayserve_platform.core.errors import Code
from rayserve_platform.core.messages import Chunk, PromptInfo
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.protocols.tgis.metrics import FAILURES, TgisMetrics

DASHBOARDS = (
    "tgi_request_success",
    "tgi_request_failure",
    "tgi_request_inference_duration_sum",
    "tgi_request_inference_duration_count",
    "tgi_request_duration_sum",
    "tgi_request_duration_count",
)
"""What OpenShift AI queries (odh-model-controller, runtime-metrics.go, line 128)."""


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def metrics(registry) -> TgisMetrics:
    return TgisMetrics(registry)


@pytest.fixture
def value(registry) -> Callable[..., float | None]:
    """Reads a sample from the exposition, as Prometheus does."""

    def read(name: str, **labels: str) -> float | None:
        text = generate_latest(registry).decode()
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) <= 1, "a sample is exported twice under one name"
        return found[0] if found else None

    return read


def succeed(metrics: TgisMetrics, **prompt) -> None:
    with metrics.call("single", 1) as began, metrics.engine():
        first = Chunk(prompt=PromptInfo(token_count=5, **prompt))
        metrics.succeeded(
            "single",
            first=first,
            stop_reason=pb.EOS_TOKEN,
            generated=3,
            max_new_tokens=20,
            began=began,
            sent=began,
        )


def test_an_answered_prompt_is_counted_under_the_names_that_dashboards_ask_for(metrics, value):
    succeed(metrics)
    metrics.failed(Code.INVALID_ARGUMENT)
    labels = {
        "tgi_request_success": {"stop_reason": "EOS_TOKEN", "kind": "single"},
        "tgi_request_failure": {"err": "validation"},
    }
    for name in DASHBOARDS:
        assert value(name, **labels.get(name, {})) is not None, name
    for name, told in labels.items():
        assert value(name, **told) == value(f"{name}_total", **told) == 1


def test_lengths_are_recorded(metrics, value):
    succeed(metrics)
    assert value("tgi_request_input_length_sum") == 5
    assert value("tgi_request_generated_tokens_sum") == 3
    assert value("tgi_request_total_tokens_sum") == 8
    assert value("tgi_request_max_new_tokens_sum") == 20
    assert value("tgi_request_count", kind="single") == 1
    assert value("tgi_request_input_count") == 1


def test_the_engines_queue_is_no_part_of_inference(metrics, value):
    succeed(metrics, queued_s=1000.0)
    assert value("tgi_request_queue_duration_sum") == 1000
    assert value("tgi_request_inference_duration_sum") == 0


def test_gauges_follow_prompts_and_end_at_nothing(metrics, value):
    with metrics.call("batch", 3):
        assert (value("tgi_queue_size"), value("tgi_batch_current_size")) == (3, 0)
        with metrics.engine(), metrics.engine():
            assert (value("tgi_queue_size"), value("tgi_batch_current_size")) == (1, 2)
    assert (value("tgi_queue_size"), value("tgi_batch_current_size")) == (0, 0)


@pytest.mark.parametrize("gone", [asyncio.CancelledError, GeneratorExit])
def test_a_client_that_leaves_is_a_failure_of_its_own(metrics, value, gone):
    with pytest.raises(gone), metrics.call("stream", 1), metrics.engine():
        raise gone
    assert value("tgi_request_failure", err="cancelled") == 1
    assert (value("tgi_queue_size"), value("tgi_batch_current_size")) == (0, 0)


def test_an_error_is_counted_once_where_it_is_answered(metrics, value):
    with pytest.raises(RuntimeError), metrics.call("single", 1):
        raise RuntimeError
    assert value("tgi_request_failure", err="cancelled") is None
    metrics.failed(Code.INTERNAL)
    assert value("tgi_request_failure", err="generate") == 1


def test_overload_has_the_originals_label():
    assert FAILURES[Code.RESOURCE_EXHAUSTED] == "conc_limit"


def test_nothing_is_exported_until_an_ingress_speaks_it():
    script = """
from prometheus_client import generate_latest
from rayserve_platform.protocols.tgis import metrics, rpc
print(b"tgi_" in generate_latest())
metrics.exported(), metrics.exported()
print(b"tgi_request_success" in generate_latest())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
