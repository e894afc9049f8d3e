"""How the servers of the v2 part are driven: KServe v2's inference over REST and gRPC."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.exchange import one_answer
from rayserve_platform.bench.in_process import Batches, batch_runs
from rayserve_platform.bench.inference import (
    ANSWERS,
    CONCURRENCY,
    LOADS,
    NAMES,
    InferLoad,
    infer_call,
    read_answer,
    rows_label,
)
from rayserve_platform.bench.load import Closed, check_answers, run_blocking, run_load
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.parts import Say, await_answer
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.rpc import RpcCall, one_message
from rayserve_platform.bench.samples import RunResult
from rayserve_platform.bench.server import Server, tail
from rayserve_platform.bench.suite_plan import SuitePlan
from rayserve_platform.bench.wrk import find_wrk, run_wrk

# Long enough for each thread of a server to have had a request.
_WARM_UP_S = 1.0
_TOLERANCE = 1e-3


def make_graphs(plan: SuitePlan, say: Say) -> None:
    """Make the models, in a process of its own.

    Raises:
        BenchError: they can't be made; with the end of the log.
    """
    say(f"making the models in {plan.graphs}")
    log = plan.out / "openvino-models.log"
    command = [
        sys.executable, "-m", "rayserve_platform.bench.openvino_models",
        "--embedder", str(plan.embedder), "--out", str(plan.graphs),
    ]  # fmt: skip
    with log.open("wb") as written:
        done = subprocess.run(command, stdout=written, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise BenchError(f"the models can't be made; end of {log}:\n{tail(log)}")


def drive_v2(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Ask both models for an inference of one row, over every wire."""
    calls = {
        load: infer_call(
            load, url=server.url, target=server.grpc_target, timeout_s=plan.timeout_s
        )
        for load in LOADS
    }  # fmt: skip
    await_answer(plan, calls[LOADS[0]], server, outcome, say)
    answers = json.loads((plan.graphs / ANSWERS).read_text(encoding="utf-8"))
    refused = {
        (load.model, load.wire): _refusal(peer, load, call, answers[load.model])
        for load, call in calls.items()
        if load.concurrency == CONCURRENCY[0]
    }
    for run in range(1, plan.runs + 1):
        for load, call in calls.items():
            if reason := refused[load.model, load.wire]:
                outcome.add(_unsupported(load, reason))
                continue
            say(f"run {run}/{plan.runs}, {load.label}, {plan.seconds} s")
            warm_up = Closed(concurrency=load.concurrency, duration_s=_WARM_UP_S)
            check_answers(run_blocking(run_load(call, warm_up)), f"{peer.name}, {load.label}")
            result = _with_cpu(server, 1, partial(_run, plan, load, call))
            outcome.add(
                replace(
                    result,
                    load=load.label,
                    ceiling=load.ceiling,
                    texts_per_s=result.requests_per_s,
                )
            )


def _refusal(peer: Peer, load: InferLoad, call: Call | RpcCall, expected: list[float]) -> str:
    """Return why a server does not answer a wire that it is known to lack; empty if it answers.

    Raises:
        BenchError: it should, and doesn't, or with other numbers than the model's.
    """
    what = f"{peer.name}, {load.label}"
    try:
        body, headers = (
            (run_blocking(one_message(call)), {})
            if isinstance(call, RpcCall)
            else run_blocking(one_answer(call))
        )
        found = read_answer(load, body, headers)
    except (BenchError, ValueError) as error:
        if load.wire in peer.lacks:
            return str(error)
        raise BenchError(f"{what}: {error}") from error
    if len(found) != len(expected) or not all(
        math.isclose(got, wanted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        for got, wanted in zip(found, expected, strict=True)
    ):
        raise BenchError(f"{what}: the numbers are not the model's")
    return ""


def _unsupported(load: InferLoad, reason: str) -> RunResult:
    return RunResult(
        load=load.label,
        driver="-",
        elapsed_s=0.0,
        succeeded=0,
        errors={f"not supported: {reason}": 1},
    )


def _run(plan: SuitePlan, load: InferLoad, call: Call | RpcCall) -> RunResult:
    executable = find_wrk() if plan.use_wrk else None
    if executable and not isinstance(call, RpcCall):
        return run_wrk(
            executable, call, concurrency=load.concurrency, duration_s=plan.seconds
        )  # fmt: skip
    shape = Closed(concurrency=load.concurrency, duration_s=plan.seconds)
    return run_blocking(run_load(call, shape))


def drive_graphs(plan: SuitePlan, _peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Let both models compute, without a server, in batches of each size."""
    loads = [
        Batches(path=f"/{model}/{size}", size=size, label=rows_label(model, size))
        for model in NAMES
        for size in CONCURRENCY
    ]
    for load, run in batch_runs(plan, server, outcome, loads, warm_up_s=_WARM_UP_S, say=say):
        outcome.add(_with_cpu(server, load.size, run))


def _with_cpu(server: Server, rows: int, run: Callable[[], RunResult]) -> RunResult:
    """Add to a run the server's CPU time for each row; a request has `rows` of them."""
    before_s = server.cpu_s()
    result = run()
    used_s = server.cpu_s() - before_s
    answered = (result.succeeded + sum(result.errors.values())) * rows
    return replace(result, server_cpu_s=used_s / answered if answered else None)
