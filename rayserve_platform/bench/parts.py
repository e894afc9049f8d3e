"""How the servers of the LLM and the overhead part are driven once they are up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from rayserve_platform.bench.calls import Call, Generation, generation_call
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.exchange import first_model
from rayserve_platform.bench.load import Closed, check_answers, run_blocking, run_load
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.requests import stream_request, unary_request
from rayserve_platform.bench.rpc import RpcCall
from rayserve_platform.bench.samples import RunResult
from rayserve_platform.bench.server import Server
from rayserve_platform.bench.suite_plan import MODEL_NAME, SuitePlan
from rayserve_platform.bench.wrk import find_wrk, run_wrk

UNARY_CONCURRENCY = 16
STREAM_CONCURRENCY = 8
_WARM_UP_S = 1.0
_RETRY_S = 0.5

Say = Callable[[str], None]


def drive_llm(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Let it generate, at each concurrency of the plan."""
    for result in generations(plan, peer, server, outcome, say):
        outcome.add(result)


def generations(
    plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say
) -> Iterator[RunResult]:
    """Let it generate a stream for each prompt; yield the runs at each concurrency of the plan.

    The time of the first answer is added to the outcome, the runs are not.
    """
    model = run_blocking(served_model(peer, server))

    def ask_for(tokens: int) -> Call:
        return generation_call(
            server.url,
            Generation(max_tokens=tokens, ignore_eos=True),
            model=model,
            prompts=plan.prompts,
            headers={},
            timeout_s=plan.timeout_s,
        )

    await_answer(plan, ask_for(1), server, outcome, say)
    call = ask_for(plan.max_tokens)
    # Each prompt once at the highest load: every cache is as warm for one server as for the next.
    warm_up = Closed(concurrency=max(plan.concurrency), requests=len(plan.prompts))
    check_answers(run_blocking(run_load(call, warm_up)), peer.name)
    for run in range(1, plan.runs + 1):
        for clients in plan.concurrency:
            shape = Closed(concurrency=clients, requests=clients * plan.per_client)
            say(f"run {run}/{plan.runs}, {clients} clients x {plan.per_client} requests")
            yield run_blocking(run_load(call, shape))


def check_tokens(result: RunResult, plan: SuitePlan, what: str) -> None:
    """Refuse a server that generates more or less than it is asked for, however fast.

    Raises:
        BenchError: it does, or answers nothing at all.
    """
    check_answers(result, what)
    tokens = round((result.output_tokens_per_s or 0.0) * result.elapsed_s)
    if tokens != result.succeeded * plan.max_tokens:
        raise BenchError(
            f"{what}: {result.succeeded} answers have {tokens} tokens in all, not "
            f"{plan.max_tokens} each"
        )


async def served_model(peer: Peer, server: Server) -> str:
    """Return the model's name.

    Raises:
        BenchError: it lists none, or another than it was started with.
    """
    model = await first_model(server.url, {})
    if peer.needs("model") and model != MODEL_NAME:
        raise BenchError(f"{server.url} serves {model!r}: another server answers for {peer.name}")
    return model


def await_answer(
    plan: SuitePlan, call: Call | RpcCall, server: Server, outcome: Outcome, say: Say
) -> None:
    """Wait for a first answer: some servers list their model long before its engine is up."""
    once = replace(call, timeout_s=plan.ready_s)
    result = run_blocking(run_load(once, Closed(concurrency=1, requests=1)))
    while not result.succeeded and server.age_s() < plan.ready_s:
        time.sleep(_RETRY_S)
        result = run_blocking(run_load(once, Closed(concurrency=1, requests=1)))
    check_answers(result, server.command.name)
    outcome.startup_s.append(server.age_s())
    say(f"first answer after {server.age_s():.1f} s, warming up")


def drive_overhead(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Repeat a short request and a stream; what they ask for takes no time to make."""
    model = run_blocking(first_model(server.url, {})) if peer.wire == "openai" else ""
    unary = raw_call(server, *unary_request(peer, model), timeout_s=plan.timeout_s)
    stream = raw_call(server, *stream_request(peer, model), timeout_s=plan.timeout_s)
    await_answer(plan, unary, server, outcome, say)
    for call, clients in ((unary, UNARY_CONCURRENCY), (stream, STREAM_CONCURRENCY)):
        warm_up = Closed(concurrency=clients, duration_s=_WARM_UP_S)
        check_answers(run_blocking(run_load(call, warm_up)), peer.name)
    for run in range(1, plan.runs + 1):
        say(f"run {run}/{plan.runs}, unary and streamed, {plan.seconds} s each")
        outcome.add(short_requests(plan, unary))
        shape = Closed(concurrency=STREAM_CONCURRENCY, duration_s=plan.seconds)
        outcome.add(_labelled("stream", run_blocking(run_load(stream, shape))))


def short_requests(plan: SuitePlan, call: Call) -> RunResult:
    """Repeat a short request, by wrk where it is installed."""
    executable = find_wrk() if plan.use_wrk else None
    if executable:
        result = run_wrk(executable, call, concurrency=UNARY_CONCURRENCY, duration_s=plan.seconds)
    else:
        shape = Closed(concurrency=UNARY_CONCURRENCY, duration_s=plan.seconds)
        result = run_blocking(run_load(call, shape))
    return _labelled("unary", result)


def _labelled(kind: str, result: RunResult) -> RunResult:
    return replace(result, load=f"{kind} {result.load}")


def raw_call(server: Server, path: str, body: bytes, *, timeout_s: float) -> Call:
    """Return a POST whose answer is only counted."""
    return Call(url=server.url + path, bodies=(body,), timeout_s=timeout_s, openai=False)
