"""How the servers of the GenAI part are driven, and OpenVINO GenAI's own pipeline beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.in_process import post
from rayserve_platform.bench.load import Closed
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.parts import Say, check_tokens, generations
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.samples import FROM_USAGE, RunResult, Sample, summarise
from rayserve_platform.bench.server import Server
from rayserve_platform.bench.suite_plan import SuitePlan


def drive_genai(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Let it generate, streamed, at each concurrency of the plan."""
    for result in generations(plan, peer, server, outcome, say):
        check_tokens(result, plan, f"{peer.name}, {result.load}")
        outcome.add(replace(result, ceiling=_in_process(result.load)))


def drive_pipeline(
    plan: SuitePlan, _peer: Peer, server: Server, outcome: Outcome, say: Say
) -> None:  # fmt: skip
    """Let the pipeline generate, without a server, as many answers at a time as clients wait for.

    It has the built-in prompts, in the order that clients send them.
    """
    outcome.startup_s.append(server.age_s())
    _generate(plan, server, Closed(concurrency=max(plan.concurrency)), len(plan.prompts))
    for run in range(1, plan.runs + 1):
        for clients in plan.concurrency:
            say(f"run {run}/{plan.runs}, {clients} x {plan.per_client} answers in process")
            shape = Closed(concurrency=clients)
            outcome.add(_generate(plan, server, shape, clients * plan.per_client))


def _generate(plan: SuitePlan, server: Server, shape: Closed, requests: int) -> RunResult:
    clients = shape.concurrency
    match post(
        server,
        f"/{clients}/{requests}/{plan.max_tokens}",
        {},
        timeout_s=plan.timeout_s * max(1.0, requests / clients),
    ):
        case {"elapsed_s": float(elapsed_s), "times_s": list(answers)} if all(answers):
            samples = [_sample(times_s) for times_s in answers]
        case _:
            raise BenchError(f"{server.command.name} did not say when its tokens came")
    label = _in_process(shape.label)
    result = summarise(
        samples, load=label, driver="in process", elapsed_s=elapsed_s, client_cpu=None
    )
    check_tokens(result, plan, f"{server.command.name}, {label}")
    return replace(result, ceiling=label)


def _sample(times_s: list[float]) -> Sample:
    """Return what one answer's tokens, each with the seconds from the start to it, come to."""
    return Sample(
        latency_s=times_s[-1],
        ttft_s=times_s[0],
        gaps_s=tuple(after - before for before, after in pairwise(times_s)),
        output_tokens=len(times_s),
        tokens_from=FROM_USAGE,
    )


def _in_process(load: str) -> str:
    """Return the label of the pipeline's runs with as many answers at a time as a load has."""
    return f"in process {load}"
