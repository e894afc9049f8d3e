"""Asks a model that runs in a process of its own, without any API, for its times."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.parts import Say
from rayserve_platform.bench.ports import HOST
from rayserve_platform.bench.samples import RunResult, Sample, summarise
from rayserve_platform.bench.server import Server
from rayserve_platform.bench.suite_plan import SuitePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """`size` texts or rows at once, again and again: POST `path`/SECONDS does so for so long."""

    path: str
    size: int
    label: str


def batch_runs(
    plan: SuitePlan,
    server: Server,
    outcome: Outcome,
    loads: Sequence[Batches],
    *,
    warm_up_s: float,
    say: Say,
) -> Iterator[tuple[Batches, Callable[[], RunResult]]]:
    """Compute batches of each size to warm up, then yield the plan's runs of each, to be done.

    Raises:
        BenchError: no answer, or one without times; also by what is yielded.
    """
    outcome.startup_s.append(server.age_s())
    for load in loads:
        _batches(plan, server, load, warm_up_s)
    for run in range(1, plan.runs + 1):
        for load in loads:
            say(f"run {run}/{plan.runs}, {load.label}, {plan.seconds} s")
            yield load, partial(_batches, plan, server, load, plan.seconds)


def _batches(plan: SuitePlan, server: Server, load: Batches, seconds: float) -> RunResult:
    match post(server, f"{load.path}/{seconds}", {}, timeout_s=plan.timeout_s + seconds):
        case {"elapsed_s": float(elapsed_s), "latencies_s": list(latencies_s)}:
            samples = [Sample(latency_s=float(latency_s)) for latency_s in latencies_s]
        case _:
            raise BenchError(f"{server.command.name} did not say how long its runs took")
    result = summarise(
        samples, load=load.label, driver="in process", elapsed_s=elapsed_s, client_cpu=None
    )
    rate = load.size * len(samples) / elapsed_s
    return replace(result, ceiling=load.label, texts_per_s=rate)


def post(server: Server, path: str, body: object, *, timeout_s: float) -> object:
    """Return the JSON that POST `path` answers to a JSON body.

    Raises:
        BenchError: no answer, or none in JSON.
    """
    connection = http.client.HTTPConnection(HOST, server.command.port, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BenchError(f"{server.command.name}: {path} failed: {error!r}") from error
    finally:
        connection.close()
