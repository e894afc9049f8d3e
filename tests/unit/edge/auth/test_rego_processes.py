"""The processes that evaluate Rego: replaced when they hang or die, gone with the ingress."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.authorization import rego
from rayserve_platform.edge.auth.denial import Denial

SLOW = """
allow if {
    numbers := [n | some n in input.auth.identity.numbers]
    sums := [1 | some a in numbers; some b in numbers; some c in numbers; a + b + c < 0]
    count(sums) > 0
}
"""
NAMED = {"u": {"plain": {"expression": "{'sub': request.headers['x-user']}"}}}


def policy(text: str, who: Any = NAMED) -> dict[str, Any]:
    return {"authentication": who, "authorization": {"rego": {"opa": {"rego": text}}}}


async def refused(asking: Any) -> Denial:
    with pytest.raises(Denial) as caught:
        await asking
    return caught.value


def workers(ask: Any) -> rego.Workers:
    found: rego.Workers = ask.guard._sources.rego
    return found


def slow() -> dict[str, Any]:
    numbers = "{'numbers': " + str(list(range(300))) + "}"
    return policy(SLOW, {"u": {"plain": {"expression": numbers}}})


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # ended, but nobody has asked how


async def test_an_evaluation_that_does_not_end_is_unavailable_and_ends_nothing_else(
    guarded: Any, eventually: Callable[..., Any]
) -> None:
    ask = await guarded(slow())
    before = workers(ask).pids
    assert len(before) == rego.WORKERS
    asking = [asyncio.create_task(refused(ask(path="/slow"))) for _ in range(rego.WORKERS)]
    for denial in await asyncio.gather(*asking):
        assert denial.code is Code.UNAVAILABLE
    await eventually(
        lambda: len(workers(ask).pids) == rego.WORKERS and not workers(ask).pids & before
    )
    assert not any(map(is_running, before))


async def test_one_evaluation_that_hangs_leaves_the_other_process_to_others(guarded: Any) -> None:
    both = slow()
    text = 'allow if input.request.path == "/quick"'
    both["authorization"]["rego"]["when"] = [{"predicate": "request.path == '/slow'"}]
    both["authorization"]["quick"] = {
        "opa": {"rego": text},
        "when": [{"predicate": "request.path == '/quick'"}],
    }
    ask = await guarded(both)
    hanging = asyncio.create_task(refused(ask(path="/slow")))
    await asyncio.sleep(0)
    await ask(path="/quick")
    assert not hanging.done()
    assert (await hanging).code is Code.UNAVAILABLE


async def test_a_process_that_is_killed_is_replaced(
    guarded: Any, eventually: Callable[..., Any]
) -> None:
    ask = await guarded(policy("allow := true"))
    before = workers(ask).pids
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for _ in before:
        assert (await refused(ask(headers={"x-user": "alice"}))).code is Code.UNAVAILABLE
    await eventually(lambda: len(workers(ask).pids - before) == rego.WORKERS)
    await ask(headers={"x-user": "alice"})


async def test_who_leaves_takes_no_process_away_nor_anybodys_answer(guarded: Any) -> None:
    ask = await guarded(policy('allow if input.auth.identity.sub == "alice"'))
    before = workers(ask).pids
    for _ in range(20):
        leaving = asyncio.create_task(ask(headers={"x-user": "alice"}))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        denial = await refused(ask(headers={"x-user": "bob"}))
        assert denial.code is Code.PERMISSION_DENIED
    assert workers(ask).pids == before


async def test_no_more_wait_than_may(guarded: Any) -> None:
    ask = await guarded(slow())
    count = rego.WORKERS + rego.MAX_WAITING + 8
    denials = await asyncio.gather(*(refused(ask(path="/slow")) for _ in range(count)))
    assert {denial.code for denial in denials} == {Code.UNAVAILABLE}
    assert sum("too many requests waiting" in denial.reason for denial in denials) == 8


async def test_processes_end_with_their_guard(guarded: Any) -> None:
    ask = await guarded(slow())
    pids = workers(ask).pids
    hanging = asyncio.create_task(ask(path="/slow"))
    await asyncio.sleep(0.05)
    await ask.guard.stop()
    assert not any(map(is_running, pids))
    await asyncio.gather(hanging, return_exceptions=True)


ORPHANS = """
import asyncio, sys
from rayserve_platform.edge.auth.authorization.rego import Workers

async def main():
    workers = Workers()
    number = workers.add(sys.argv[1], all_values=False, where="x")
    await workers.start()
    numbers = b"[" + b",".join(b"1" for _ in range(300)) + b"]"
    given = b'{"request":{"path":"/"},"auth":{"identity":{"numbers":' + numbers + b"}}}"
    asking = asyncio.create_task(workers.evaluate(number, given))
    await asyncio.sleep(0.1)
    print(*workers.pids, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_processes_end_when_the_ingress_is_killed_whatever_they_do(
    eventually: Callable[..., Any],
) -> None:
    path = str(Path(rego.__file__).parents[4])
    with subprocess.Popen(  # noqa: ASYNC220  # it is only begun here
        [sys.executable, "-c", ORPHANS, SLOW], stdout=subprocess.PIPE, cwd=path
    ) as ingress:
        assert ingress.stdout is not None
        pids = [int(pid) for pid in (await asyncio.to_thread(ingress.stdout.readline)).split()]
        assert len(pids) == rego.WORKERS
        assert all(map(is_running, pids))
        ingress.kill()
    await eventually(lambda: not any(map(is_running, pids)))
