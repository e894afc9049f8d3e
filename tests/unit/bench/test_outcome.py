import io

import pytest
from rich.console import Console

from rayserve_platform.bench.outcome import Outcome, comparisons, rows
from rayserve_platform.bench.processes import ProcessMemory
from rayserve_platform.bench.samples import (
    LoadResult,
    RunResult,
    Sample,
    summarise,
    time_per_token,
)
from rayserve_platform.bench.tables import load_table, number, suite_tables


def run(tokens: float | None, load: str = "c=1", **fields) -> RunResult:
    return RunResult(
        load=load, driver="aiohttp", elapsed_s=1.0, succeeded=1, errors=fields.pop("errors", {}),
        output_tokens_per_s=tokens, **fields,
    )  # fmt: skip


def outcome(name: str, *runs: RunResult, reference: str = "vllm", part: str = "llm") -> Outcome:
    made = Outcome(name=name, about="", part=part, reference=reference)
    for one in runs:
        made.add(one)
    return made


def text_of(table: object) -> str:
    out = io.StringIO()
    Console(file=out, width=250).print(table)
    return out.getvalue()


def test_ratios_are_of_medians_pooled_over_the_rounds():
    outcomes = [
        outcome("vllm", run(10.0), run(30.0), run(20.0)),
        outcome("ours", run(15.0), run(25.0), run(5.0)),
    ]
    ratios = {
        row.server: row.ratios["output_tokens_per_s"]
        for row in rows(outcomes, "llm", ["output_tokens_per_s"])
    }
    assert ratios == {"vllm": 1.0, "ours": 0.75}


def test_rows_go_load_by_load_and_leave_out_what_was_not_measured():
    outcomes = [
        outcome("vllm", run(10.0), run(40.0, load="c=8")),
        outcome("failed"),
        outcome("ours", run(20.0)),
        outcome("bare", run(1.0, load="unary"), part="overhead", reference="bare"),
    ]
    found = [(row.result.load, row.server) for row in rows(outcomes, "llm", [])]
    assert found == [("c=1", "vllm"), ("c=1", "ours"), ("c=8", "vllm")]


def test_ratio_is_unknown_without_the_reference():
    (row,) = rows([outcome("ours", run(10.0))], "llm", ["output_tokens_per_s", "ttft_p50_s"])
    assert dict(row.medians) == {"output_tokens_per_s": 10.0, "ttft_p50_s": None}
    assert dict(row.ratios) == {"output_tokens_per_s": None, "ttft_p50_s": None}


def test_samples_sum_up_to_rates_and_percentiles():
    samples = [
        Sample(latency_s=1.0, ttft_s=0.2, gaps_s=(0.1, 0.3), events=3, output_tokens=5,
               tokens_from="usage"),
        Sample(latency_s=3.0, ttft_s=0.4, gaps_s=(0.2,), events=5, output_tokens=11,
               tokens_from="chunks"),
        Sample(latency_s=9.0, error="timeout"),
    ]  # fmt: skip
    result = summarise(samples, load="c=1", driver="aiohttp", elapsed_s=4.0, client_cpu=0.1)
    assert (result.succeeded, dict(result.errors), result.tokens_from) == (
        2,
        {"timeout": 1},
        "chunks",
    )
    assert (result.requests_per_s, result.output_tokens_per_s, result.events_per_s) == (0.5, 4, 2)
    assert (result.latency_p50_s, result.itl_p50_s) == (2.0, 0.2)
    assert result.ttft_p50_s == pytest.approx(0.3)
    assert result.tpot_p50_s == pytest.approx((0.2 + 0.26) / 2)


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_time_per_token_needs_a_second_token(tokens: int | None):
    assert time_per_token(Sample(latency_s=1.0, ttft_s=0.5, output_tokens=tokens)) is None


def test_loads_as_json_hold_runs_and_spreads_of_what_was_measured():
    found = LoadResult(load="c=1", runs=(run(10.0), run(20.0, errors={"timeout": 2}))).as_json()
    assert found["errors"] == {"timeout": 2}
    assert found["spread"] == {"output_tokens_per_s": {"median": 15.0, "low": 10.0, "high": 20.0}}


def test_share_of_the_bare_model_is_shown_where_it_was_measured():
    def embedding(texts_per_s: float, load: str, ceiling: str) -> RunResult:
        return run(None, load=load, texts_per_s=texts_per_s, ceiling=ceiling)

    ours = outcome("ours", embedding(90.0, "c=1", "batch"), part="caikit", reference="real")
    real = outcome("real", embedding(30.0, "c=1", "batch"), part="caikit", reference="real")
    bare = outcome("bare", embedding(120.0, "batch", "batch"), part="caikit", reference="real")
    shares = {row.server: row.of_ceiling for row in rows([real, ours, bare], "caikit", [])}
    assert shares == {"real": 0.25, "ours": 0.75, "bare": 1.0}
    text = text_of(suite_tables([real, ours, bare]))
    assert "0.75" in text
    assert "90 (3.00)" in text
    alone = text_of(suite_tables([real, ours]))
    assert "in process" not in alone
    assert "in process" in text


def test_several_replicas_are_compared_with_one_by_the_cpu_a_row_costs():
    def costs(name: str, *cpu_s: float | None, replicas: int = 1) -> Outcome:
        runs = [run(None, texts_per_s=40.0, server_cpu_s=used) for used in cpu_s]
        made = outcome(name, *runs, part="v2", reference="real")
        made.replicas, made.one_replica = replicas, "one" if replicas > 1 else None
        return made

    one = costs("one", 0.003, 0.002, 0.001)
    # As cheap a row as with one; dearer by a quarter; so dear that the second one is for nothing.
    two, dear, useless = (
        costs(name, cpu_s, replicas=2)
        for name, cpu_s in (("two", 0.002), ("dear", 0.0025), ("useless", 0.004))
    )
    three, unknown = costs("three", 0.0025, replicas=3), costs("unknown", None, replicas=2)
    servers = [one, two, dear, useless, three, unknown]
    assert {row.server: row.scaling for row in rows(servers, "v2", [])} == {
        "one": None, "two": 2.0, "dear": 1.6, "useless": 1.0, "three": pytest.approx(2.4),
        "unknown": None,
    }  # fmt: skip
    assert [row.scaling for row in rows([two], "v2", [])] == [None]
    assert [row.get("scaling") for row in comparisons([one, dear])] == [None, 1.6]
    text, alone = (text_of(suite_tables(shown)) for shown in ([one, dear], [dear]))
    assert "replica, by CPU" in text
    assert "1.60" in text
    assert "replica, by CPU" not in alone


def test_comparisons_leave_out_what_nobody_measured():
    found = comparisons([outcome("vllm", run(10.0)), outcome("ours", run(5.0))])
    assert found[1] == {
        "server": "ours", "reference": "vllm", "load": "c=1",
        "medians": {"output_tokens_per_s": 5.0}, "ratios": {"output_tokens_per_s": 0.5},
    }  # fmt: skip


def test_suite_tables_show_ratios_memory_and_failures():
    vllm = outcome("vllm", run(10.0))
    ours = outcome("ours", run(8.0, errors={"http_503": 2}))
    ours.failures.append("round 1: was not ready within 3 s")
    ours.memory = (
        ProcessMemory(pid=1, name="ray::ServeReplica:app:Ingress", rss_mb=200.4),
        ProcessMemory(pid=2, name="raylet", rss_mb=31.0),
    )
    text = text_of(suite_tables([vllm, ours]))
    for part in ("8 (0.80)", "http_503 x2", "ray::ServeReplica:app:Ingress", "231", "FAILED ours"):
        assert part in text


def test_load_table_says_when_tokens_are_counted_chunks():
    counted = LoadResult(load="c=1", runs=(run(10.0, tokens_from="chunks"),))
    own = LoadResult(load="c=1", runs=(run(10.0, tokens_from="usage"),))
    assert "tokens are counted chunks" in text_of(load_table([counted]))
    assert "counted chunks" not in text_of(load_table([own]))


@pytest.mark.parametrize(
    ("value", "shown"), [(0.012345, "0.0123"), (5.0, "5"), (99.51, "99.5"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits(value: float, shown: str):
    assert number(value) == shown
