"""Measures servers side by side: one at a time, the same load for each, in interleaved rounds."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from rayserve_platform.bench.auth_part import drive_auth
from rayserve_platform.bench.caikit_part import drive_caikit, drive_model
from rayserve_platform.bench.cluster import cluster_environment
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.genai_part import drive_genai, drive_pipeline
from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.parts import Say, drive_llm, drive_overhead
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.ports import free_port
from rayserve_platform.bench.server import (
    Server,
    ServerCommand,
    environment,
    running,
    stopping_by_signal,
)
from rayserve_platform.bench.suite_plan import MODEL_NAME, SuitePlan
from rayserve_platform.bench.tgis_part import drive_tgis
from rayserve_platform.bench.v2_part import drive_graphs, drive_v2, make_graphs

Drive = Callable[[SuitePlan, Peer, Server, Outcome, Say], None]


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
            name=peer.name, about=peer.about, part=peer.part, reference=peer.reference,
            replicas=peer.replicas, one_replica=peer.one_replica,
        )
        for peer in plan.peers
    }  # fmt: skip
    with stopping_by_signal():
        if plan.lacks_graphs:
            make_graphs(plan, say)
        for one, peer, number in _rounds(plan):
            try:
                _measure(one, peer, number, outcomes[peer.name], say)
            except BenchError as error:
                outcomes[peer.name].failures.append(f"round {number}: {error}")
                say(f"{peer.name}: FAILED: {error}")
    return list(outcomes.values())


def _rounds(plan: SuitePlan) -> Iterator[tuple[SuitePlan, Peer, int]]:
    """Yield which server is measured next, in which round, and by which plan.

    The servers of the Caikit, the v2 and the auth part start in seconds: for them each run is a
    round, so that one's runs lie between the others'.
    """
    quick = replace(plan, runs=1, rounds=plan.rounds * plan.runs)
    for one, is_quick in ((plan, False), (quick, True)):
        peers = [peer for peer in plan.peers if (peer.part in ("caikit", "v2", "auth")) is is_quick]
        for number in range(1, one.rounds + 1):
            for peer in peers:
                yield one, peer, number


def _measure(plan: SuitePlan, peer: Peer, number: int, outcome: Outcome, say: Say) -> None:
    step = f"round {number}/{plan.rounds} {peer.name}"
    # Ray's unix sockets need a short path, so not below the output folder.
    with tempfile.TemporaryDirectory(prefix="rsb", ignore_cleanup_errors=True) as folder:
        say(f"{step}: starting")
        with running(_command(plan, peer, number, Path(folder))) as server:
            say(f"{step}: up after {server.age_s():.1f} s, waiting for its first answer")
            drive = _driver(peer)
            drive(plan, peer, server, outcome, lambda what: say(f"{step}: {what}"))
            outcome.memory = server.memory()
            say(f"{step}: stopping")


def _driver(peer: Peer) -> Drive:
    match peer.part:
        case "llm":
            return drive_llm
        case "overhead":
            return drive_overhead
        case "caikit":
            return drive_model if peer.wire == "model" else drive_caikit
        case "tgis":
            return drive_tgis
        case "v2":
            return drive_graphs if peer.wire == "model" else drive_v2
        case "genai":
            return drive_pipeline if peer.wire == "model" else drive_genai
        case "auth":
            return drive_auth


def _command(plan: SuitePlan, peer: Peer, number: int, folder: Path) -> ServerCommand:
    port, grpc_port = free_port(), free_port()
    values = {
        "python": sys.executable,
        "scripts": str(Path(__file__).parent),
        "port": str(port),
        "grpc_port": str(grpc_port),
        "metrics_port": str(free_port()),
        "out": str(plan.out),
        **{name: str(folder) for name, folder in plan.environments().items()},
        "graphs": str(plan.graphs),
        "embedder": str(plan.embedder),
        "model": str(plan.model),
        "gguf": str(plan.gguf),
        "name": MODEL_NAME,
        "config": str(_config(plan, peer)),
    }
    # Our own configs name no directory: they take the model from the environment.
    model = {"RAYSERVE_BENCH_MODEL": str(plan.model.resolve())} if plan.model else {}
    return ServerCommand(
        name=peer.name,
        argv=peer.argv(values, plan.flags),
        environment=environment(
            cluster_environment(folder),
            plan.flags.environment(),
            model,
            peer.environment,
        ),
        port=port,
        grpc_port=grpc_port,
        ready_path=peer.ready_path,
        log=plan.out / f"{peer.name}-round{number}.log",
        ready_s=plan.ready_s,
    )


def _config(plan: SuitePlan, peer: Peer) -> Path | None:
    """Return the config file of a peer that has one, changed as the peer says.

    One of the v2 part names the folder of the models that the bench makes.
    """
    if peer.config is None or not (peer.without or peer.part == "v2"):
        return plan.configs / peer.config if peer.config else None
    content = yaml.safe_load((plan.configs / peer.config).read_text())
    variables = content["controller_options"]["runtime_env"]["env_vars"]
    for name in peer.without:
        del variables[name]
    args = content["applications"][0]["args"]
    args |= peer.args
    if peer.replicas > 1:
        args["deployment"] = {"num_replicas": peer.replicas}
    if peer.part == "v2":
        args["models_dir"] = str(plan.graphs.resolve())
    changed = plan.out / f"{peer.name}.yaml"
    changed.write_text(yaml.safe_dump(content))
    return changed
