"""How the servers of the Caikit part are driven, and the bare model beside them."""

from __future__ import annotations

from dataclasses import replace

from rayserve_platform.bench.embedding import (
    BATCHES,
    LOADS,
    MODEL_ID,
    TaskLoad,
    batch_label,
    task_call,
)
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.in_process import Batches, batch_runs, post
from rayserve_platform.bench.load import Closed, check_answers, run_blocking, run_load
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.parts import Say, await_answer
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.samples import RunResult
from rayserve_platform.bench.server import Server
from rayserve_platform.bench.suite_plan import SuitePlan

# Long enough for each thread of a server to have had a request.
_WARM_UP_S = 1.0
_CHECKED = "The quick brown fox jumps over the lazy dog."


def drive_caikit(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Ask for every task, over REST and gRPC."""
    calls = {
        load: task_call(
            load, url=server.url, target=server.grpc_target, timeout_s=plan.timeout_s
        )
        for load in LOADS
    }  # fmt: skip
    await_answer(plan, calls[LOADS[0]], server, outcome, say)
    _check_answer(plan, peer, server)
    for run in range(1, plan.runs + 1):
        for load, call in calls.items():
            say(f"run {run}/{plan.runs}, {load.label}, {plan.seconds} s")
            warm_up = Closed(concurrency=load.concurrency, duration_s=_WARM_UP_S)
            check_answers(run_blocking(run_load(call, warm_up)), f"{peer.name}, {load.label}")
            shape = Closed(concurrency=load.concurrency, duration_s=plan.seconds)
            outcome.add(_of_task(load, run_blocking(run_load(call, shape))))


def _of_task(load: TaskLoad, result: RunResult) -> RunResult:
    rate = result.requests_per_s
    return replace(
        result,
        load=load.label,
        ceiling=load.ceiling,
        texts_per_s=rate * load.texts if rate is not None else None,
    )


def drive_model(plan: SuitePlan, _peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Let it embed, without a server, in batches of each size."""
    loads = [
        Batches(path=f"/{size}/{words}", size=size, label=batch_label(size, words))
        for size, words in BATCHES
    ]
    for _, run in batch_runs(plan, server, outcome, loads, warm_up_s=_WARM_UP_S, say=say):
        outcome.add(run())


def _check_answer(plan: SuitePlan, peer: Peer, server: Server) -> None:
    """Refuse a server that answers with something else than a vector, however fast."""
    path = "/api/v1/task/embedding"
    answer = post(
        server, path, {"model_id": MODEL_ID, "inputs": _CHECKED}, timeout_s=plan.timeout_s
    )
    match answer:
        case {"result": {"data": {"values": [float(), *_]}}}:
            return
        case _:
            raise BenchError(f"{peer.name}: {path} answered without a vector")
