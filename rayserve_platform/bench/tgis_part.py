"""How the servers of the TGIS part are asked: TGIS's gRPC API against OpenAI's completions.

vllm-tgis-adapter itself needs an older vLLM than the one measured here, so vLLM's own OpenAI
server stands for it: the same engine, behind the least that serves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from rayserve_platform.bench.calls import Call, Generation, generation_call
from rayserve_platform.bench.load import Closed, run_blocking, run_load
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.parts import Say, await_answer, check_tokens, served_model
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.protobuf import field, fields
from rayserve_platform.bench.rpc import Generated, RpcCall
from rayserve_platform.bench.server import Server
from rayserve_platform.bench.suite_plan import SuitePlan

Mode = Literal["unary", "stream"]

MODES: tuple[Mode, ...] = ("unary", "stream")
_METHODS: Mapping[Mode, str] = {
    "unary": "/fmaas.GenerationService/Generate",
    "stream": "/fmaas.GenerationService/GenerateStream",
}


def drive_tgis(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    """Let it generate, whole and streamed, at each concurrency of the plan."""
    model = run_blocking(served_model(peer, server))
    first = _call(plan, peer, server, mode="unary", model=model, tokens=1)
    await_answer(plan, first, server, outcome, say)
    calls = {
        mode: _call(plan, peer, server, mode=mode, model=model, tokens=plan.max_tokens)
        for mode in MODES
    }
    warm_up = Closed(concurrency=max(plan.concurrency), requests=len(plan.prompts))
    for mode, call in calls.items():
        check_tokens(run_blocking(run_load(call, warm_up)), plan, f"{peer.name}, {mode}")
    for run in range(1, plan.runs + 1):
        for mode, call in calls.items():
            for clients in plan.concurrency:
                shape = Closed(concurrency=clients, requests=clients * plan.per_client)
                say(f"run {run}/{plan.runs}, {mode}, {clients} x {plan.per_client} requests")
                result = run_blocking(run_load(call, shape))
                outcome.add(replace(result, load=f"{mode} {result.load}"))


def _call(
    plan: SuitePlan, peer: Peer, server: Server, *, mode: Mode, model: str, tokens: int
) -> Call | RpcCall:
    if peer.wire == "tgis":
        return tgis_call(
            mode, plan.prompts, tokens, target=server.grpc_target, timeout_s=plan.timeout_s
        )  # fmt: skip
    generation = Generation(
        # Not `ignore_eos`, which would leave the engine less to do than TGIS's minimum does.
        endpoint="completions",
        stream=mode == "stream",
        max_tokens=tokens,
        min_tokens=tokens,
    )
    return generation_call(
        server.url,
        generation,
        model=model,
        prompts=plan.prompts,
        headers={},
        timeout_s=plan.timeout_s,
    )


def tgis_call(
    mode: Mode, prompts: tuple[str, ...], tokens: int, *, target: str, timeout_s: float
) -> RpcCall:
    """Return the call that continues each prompt in turn, greedily, by exactly so many tokens."""
    # Fields of `fmaas`: requests (request) = 3, its text = 2; params = 10, its stopping = 3 with
    # max_new_tokens = 1 and min_new_tokens = 2. The decoding method is greedy unless it is given.
    params = field(10, field(3, field(1, tokens) + field(2, tokens)))
    return RpcCall(
        target=target,
        method=_METHODS[mode],
        bodies=tuple(field(3, field(2, prompt)) + params for prompt in prompts),
        timeout_s=timeout_s,
        stream=mode == "stream",
        read=_read_message if mode == "stream" else _read_batch,
    )


def _read_batch(answer: bytes) -> Generated:
    """Read the answer to one prompt. BatchedGenerationResponse: responses = 1."""
    match fields(answer).get(1):
        case bytes(response):
            return _read_message(response)
        case _:
            raise ValueError("the answer holds no response")


def _read_message(message: bytes) -> Generated:
    """Read a GenerationResponse: generated_token_count = 2, text = 4."""
    found = fields(message)
    match found.get(2, 0):
        case int(tokens):
            return Generated(tokens=tokens, text=bool(found.get(4)))
        case _:
            raise ValueError("the count of tokens is no number")
