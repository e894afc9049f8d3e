"""Joining the metrics of several processes, read back by Prometheus's own parser."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rayserve_platform.edge.observe import merge


def exposition(engine: str) -> bytes:
    registry = CollectorRegistry()
    Counter("answers", "Answers.", ("engine",), registry=registry).labels(engine).inc()
    Gauge("running", "Requests now.", ("engine",), registry=registry).labels(engine).set(2)
    return generate_latest(registry)


def test_each_family_stands_once_with_the_samples_of_all():
    text = merge([exposition("one"), exposition("two"), b"bare 7\n"]).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert text.count("# TYPE answers_total counter") == 1
    assert text.count("# TYPE running gauge") == 1
    assert [s.labels["engine"] for s in families["running"].samples] == ["one", "two"]
    assert families["bare"].samples[0].value == 7


def test_one_exposition_stays_as_it_is():
    text = exposition("one")
    assert merge([text]) == text
