"""How the servers of the auth part are driven: requests with a token, and checks by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.in_process import post
from rayserve_platform.bench.load import Closed, check_answers, run_blocking, run_load
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.parts import (
    UNARY_CONCURRENCY,
    Say,
    await_answer,
    raw_call,
    short_requests,
)
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.requests import unary_request
from rayserve_platform.bench.samples import RunResult
from rayserve_platform.bench.server import Server
from rayserve_platform.bench.suite_plan import SuitePlan

MODEL = "fake"
CHECKS = 20_000
"""In a run: a second of them, or less."""
BOUNDS_US: Mapping[str, int] = {
    "auth-key": 30,
    "auth-review": 30,
    "auth-access": 30,
    "auth-rs256": 500,
    "auth-es256": 500,
}
"""What a check may cost at most, of one core."""
_WARM_UP_S = 1.0


def bound_label(bound_us: int) -> str:
    """Return the name of the load of checks that have this bound."""
    return f"one check, at most {bound_us} us"


def drive_auth(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Repeat a short request with a token, and let the server check one over and over.

    The server that checks nothing gets the bounds themselves for runs of checks, so that the others
    are told in shares of these.
    """
    bound_us = BOUNDS_US.get(peer.name)
    headers = {} if bound_us is None else {"Authorization": f"Bearer {_token(plan, server)}"}
    path, body = unary_request(peer, MODEL)
    call = replace(raw_call(server, path, body, timeout_s=plan.timeout_s), headers=headers)
    await_answer(plan, call, server, outcome, say)
    warm_up = Closed(concurrency=UNARY_CONCURRENCY, duration_s=_WARM_UP_S)
    check_answers(run_blocking(run_load(call, warm_up)), peer.name)
    for run in range(1, plan.runs + 1):
        say(f"run {run}/{plan.runs}, requests for {plan.seconds} s, and checks")
        before_s = server.cpu_s()
        result = short_requests(plan, call)
        used_s = server.cpu_s() - before_s
        each_s = used_s / result.succeeded if result.succeeded else None
        outcome.add(replace(result, server_cpu_s=each_s))
        if bound_us is None:
            for bound in sorted(set(BOUNDS_US.values())):
                outcome.add(_checks(bound, "the bound", bound * 1e-6))
        else:
            outcome.add(_checks(bound_us, "in process", _cost_s(plan, server)))


def _token(plan: SuitePlan, server: Server) -> str:
    match post(server, "/bench/token", {}, timeout_s=plan.timeout_s):
        case {"token": str(token)}:
            return token
    raise BenchError(f"{server.command.name} gave no token")


def _cost_s(plan: SuitePlan, server: Server) -> float:
    match post(server, f"/bench/check/{CHECKS}", {}, timeout_s=plan.timeout_s):
        case {"cpu_s": float(cost_s)}:
            return cost_s
    raise BenchError(f"{server.command.name} did not say what a check costs")


def _checks(bound_us: int, driver: str, cost_s: float) -> RunResult:
    return RunResult(
        load=bound_label(bound_us),
        driver=driver,
        elapsed_s=CHECKS * cost_s,
        succeeded=CHECKS,
        errors={},
        server_cpu_s=cost_s,
    )
