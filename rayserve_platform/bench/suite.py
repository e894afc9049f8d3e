"""Measures servers side by side: one at a time, the same load for each, in interleaved rounds."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from rayserve_platform.bench.calls import Call, Generation, generation_call
from rayserve_platform.bench.cluster import cluster_environment
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.exchange import first_model
from rayserve_platform.bench.load import Closed, check_answers, run_blocking, run_load
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.peers import (
    PEERS,
    ModelFlags,
    Part,
    Peer,
    stream_request,
    unary_request,
)
from rayserve_platform.bench.prompts import BUILT_IN
from rayserve_platform.bench.samples import RunResult
from rayserve_platform.bench.server import (
    Server,
    ServerCommand,
    environment,
    free_port,
    running,
    stopping_by_signal,
)
from rayserve_platform.bench.wrk import find_wrk, run_wrk

MODEL_NAME = "bench-model"
UNARY_CONCURRENCY = 16
STREAM_CONCURRENCY = 8
_WARM_UP_S = 1.0
_RETRY_S = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuitePlan:
    """What to measure.

    `per_client` requests are sent by each of `concurrency` clients in a run of the LLM part, so a
    run has the same number of waves at every concurrency; `seconds` is the length of a run of the
    overhead part. `ready_s` is the deadline for a server's start, up to its first answer.
    """

    peers: tuple[Peer, ...]
    out: Path
    model: Path | None = None
    configs: Path = Path("configs/bench")
    runs: int = 3
    rounds: int = 1
    concurrency: tuple[int, ...] = (1, 8, 16)
    per_client: int = 4
    max_tokens: int = 64
    seconds: int = 5
    ready_s: float = 300.0
    timeout_s: float = 300.0
    use_wrk: bool = True
    prompts: tuple[str, ...] = BUILT_IN
    flags: ModelFlags = field(default_factory=ModelFlags)

    def settings(self) -> dict[str, object]:
        """Return what results depend on, as a JSON object."""
        return {
            "servers": [peer.name for peer in self.peers],
            "flags": asdict(self.flags),
            "runs": self.runs,
            "rounds": self.rounds,
            "concurrency": self.concurrency,
            "requests_per_client": self.per_client,
            "max_tokens": self.max_tokens,
            "prompts": len(self.prompts),
            "seconds": self.seconds,
        }

    def check(self) -> None:
        """Refuse what would fail only after minutes.

        Raises:
            BenchError: the model directory or a config file is missing.
        """
        if any(peer.needs_model for peer in self.peers):
            if self.model is None:
                raise BenchError("the LLM servers need --model DIR, a Hugging Face model directory")
            if not (self.model / "config.json").is_file():
                raise BenchError(f"--model {self.model} has no config.json: not a model directory")
        missing = [
            str(self.configs / peer.config)
            for peer in self.peers
            if peer.config and not (self.configs / peer.config).is_file()
        ]
        if missing:
            raise BenchError(
                f"config files not found: {', '.join(missing)}; run from the repository's root, "
                "or give their folder with --configs"
            )


def part_named(name: str) -> Part | None:
    """Return the part of that name, None for `all`."""
    match name:
        case "llm" | "overhead":
            return name
        case _:
            return None


def choose(names: Sequence[str], part: Part | None) -> tuple[Peer, ...]:
    """Return the named peers (all, when none is named) of the part (both, when None).

    Raises:
        BenchError: an unknown name, or nothing left.
    """
    known = {peer.name for peer in PEERS}
    if unknown := [name for name in names if name not in known]:
        raise BenchError(f"unknown server {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    chosen = tuple(
        peer
        for peer in PEERS
        if (not names or peer.name in names) and (part is None or peer.part == part)
    )
    if not chosen:
        raise BenchError(f"none of {', '.join(names)} is in part {part}")
    return chosen


def run_suite(plan: SuitePlan, say: Say) -> list[Outcome]:
    """Measure every server in every round; one that fails is noted and the next goes on.

    `say` gets a line at each step. On KeyboardInterrupt (SIGTERM and SIGHUP act alike) the running
    server and all its processes are ended before it is passed on.

    Raises:
        BenchError: the plan can't be run at all.
    """
    plan.check()
    outcomes = {
        peer.name: Outcome(
            name=peer.name, about=peer.about, part=peer.part, reference=peer.reference
        )
        for peer in plan.peers
    }
    with stopping_by_signal():
        for number in range(1, plan.rounds + 1):
            for peer in plan.peers:
                try:
                    _measure(plan, peer, number, outcomes[peer.name], say)
                except BenchError as error:
                    outcomes[peer.name].failures.append(f"round {number}: {error}")
                    say(f"{peer.name}: FAILED: {error}")
    return list(outcomes.values())


def _measure(plan: SuitePlan, peer: Peer, number: int, outcome: Outcome, say: Say) -> None:
    step = f"round {number}/{plan.rounds} {peer.name}"
    # Ray's unix sockets need a short path, so not below the output folder.
    with tempfile.TemporaryDirectory(prefix="rsb", ignore_cleanup_errors=True) as folder:
        say(f"{step}: starting")
        with running(_command(plan, peer, number, Path(folder))) as server:
            say(f"{step}: up after {server.age_s():.1f} s, waiting for its first answer")
            drive = _drive_llm if peer.part == "llm" else _drive_overhead
            drive(plan, peer, server, outcome, lambda what: say(f"{step}: {what}"))
            outcome.memory = server.memory()
            say(f"{step}: stopping")


def _command(plan: SuitePlan, peer: Peer, number: int, folder: Path) -> ServerCommand:
    port = free_port()
    values = {
        "python": sys.executable,
        "port": str(port),
        "grpc_port": str(free_port()),
        "model": str(plan.model),
        "name": MODEL_NAME,
        "config": str(_config(plan, peer)),
    }
    # Our own configs name no directory: they take the model from the environment.
    model = {"RAYSERVE_BENCH_MODEL": str(plan.model.resolve())} if plan.model else {}
    return ServerCommand(
        name=peer.name,
        argv=peer.argv(values, plan.flags),
        environment=environment(
            cluster_environment(folder, free_port),
            plan.flags.environment(),
            model,
            peer.environment,
        ),
        port=port,
        ready_path=peer.ready_path,
        log=plan.out / f"{peer.name}-round{number}.log",
        ready_s=plan.ready_s,
    )


def _config(plan: SuitePlan, peer: Peer) -> Path | None:
    """Return the config file of a peer that has one, without the settings to be taken out."""
    if peer.config is None or not peer.without:
        return plan.configs / peer.config if peer.config else None
    content = yaml.safe_load((plan.configs / peer.config).read_text())
    variables = content["controller_options"]["runtime_env"]["env_vars"]
    for name in peer.without:
        del variables[name]
    changed = plan.out / f"{peer.name}.yaml"
    changed.write_text(yaml.safe_dump(content))
    return changed


def _drive_llm(plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say) -> None:
    model = run_blocking(first_model(server.url, {}))
    if peer.needs_model and model != MODEL_NAME:
        raise BenchError(f"{server.url} serves {model!r}: another server answers for {peer.name}")

    def ask_for(tokens: int) -> Call:
        return generation_call(
            server.url,
            Generation(max_tokens=tokens, ignore_eos=True),
            model=model,
            prompts=plan.prompts,
            headers={},
            timeout_s=plan.timeout_s,
        )

    _await_answer(plan, ask_for(1), server, outcome, say)
    call = ask_for(plan.max_tokens)
    # Each prompt once at the highest load: every cache is as warm for one server as for the next.
    warm_up = Closed(concurrency=max(plan.concurrency), requests=len(plan.prompts))
    check_answers(run_blocking(run_load(call, warm_up)), peer.name)
    for run in range(1, plan.runs + 1):
        for clients in plan.concurrency:
            shape = Closed(concurrency=clients, requests=clients * plan.per_client)
            say(f"run {run}/{plan.runs}, {clients} clients x {plan.per_client} requests")
            outcome.add(run_blocking(run_load(call, shape)))


def _await_answer(plan: SuitePlan, call: Call, server: Server, outcome: Outcome, say: Say) -> None:
    """Wait for a first answer: some servers list their model long before its engine is up."""
    once = replace(call, timeout_s=plan.ready_s)
    result = run_blocking(run_load(once, Closed(concurrency=1, requests=1)))
    while not result.succeeded and server.age_s() < plan.ready_s:
        time.sleep(_RETRY_S)
        result = run_blocking(run_load(once, Closed(concurrency=1, requests=1)))
    check_answers(result, server.command.name)
    outcome.startup_s.append(server.age_s())
    say(f"first answer after {server.age_s():.1f} s, warming up")


def _drive_overhead(
    plan: SuitePlan, peer: Peer, server: Server, outcome: Outcome, say: Say
) -> None:
    model = run_blocking(first_model(server.url, {})) if peer.wire == "openai" else ""
    unary = _raw_call(server, *unary_request(peer, model), timeout_s=plan.timeout_s)
    stream = _raw_call(server, *stream_request(peer, model), timeout_s=plan.timeout_s)
    _await_answer(plan, unary, server, outcome, say)
    for call, clients in ((unary, UNARY_CONCURRENCY), (stream, STREAM_CONCURRENCY)):
        warm_up = Closed(concurrency=clients, duration_s=_WARM_UP_S)
        check_answers(run_blocking(run_load(call, warm_up)), peer.name)
    for run in range(1, plan.runs + 1):
        say(f"run {run}/{plan.runs}, unary and streamed, {plan.seconds} s each")
        outcome.add(_unary(plan, unary))
        shape = Closed(concurrency=STREAM_CONCURRENCY, duration_s=plan.seconds)
        outcome.add(_labelled("stream", run_blocking(run_load(stream, shape))))


def _unary(plan: SuitePlan, call: Call) -> RunResult:
    executable = find_wrk() if plan.use_wrk else None
    if executable:
        result = run_wrk(executable, call, concurrency=UNARY_CONCURRENCY, duration_s=plan.seconds)
    else:
        shape = Closed(concurrency=UNARY_CONCURRENCY, duration_s=plan.seconds)
        result = run_blocking(run_load(call, shape))
    return _labelled("unary", result)


def _labelled(kind: str, result: RunResult) -> RunResult:
    return replace(result, load=f"{kind} {result.load}")


def _raw_call(server: Server, path: str, body: bytes, *, timeout_s: float) -> Call:
    return Call(url=server.url + path, bodies=(body,), timeout_s=timeout_s, openai=False)
