"""Servers that are scripts, and a small suite of them."""

from pathlib import Path

from rayserve_platform.bench.outcome import Outcome
from rayserve_platform.bench.peer import Part, Peer, Wire
from rayserve_platform.bench.suite import run_suite
from rayserve_platform.bench.suite_plan import SuitePlan


def scripted(name: str, script: str, *ports: str, part: Part, wire: Wire) -> Peer:
    """Return a server of a part whose reference is called `real`; its script gets the ports."""
    return Peer(
        name=name, about="", part=part, reference="real", ready_path="/", wire=wire,
        command=("{python}", "-c", script.replace("{", "{{").replace("}", "}}"), *ports),
    )  # fmt: skip


def measured(out: Path, *peers: Peer, max_tokens: int) -> list[Outcome]:
    """Drive servers twice with one client and with two, of three requests each."""
    plan = SuitePlan(
        peers=peers, out=out, runs=2, concurrency=(1, 2), per_client=3, max_tokens=max_tokens,
        ready_s=30, timeout_s=20,
    )  # fmt: skip
    return run_suite(plan, lambda _: None)
