"""Drives a call: closed loop (so many clients) or open loop (so many arrivals a second)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import count, islice
from time import perf_counter, process_time
from typing import Any, TypeVar

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.exchange import http_exchange
from rayserve_platform.bench.rpc import RpcCall, rpc_exchange
from rayserve_platform.bench.samples import RunResult, Sample, summarise

T = TypeVar("T")
Send = Callable[[int, float], Coroutine[Any, Any, Sample]]
Tick = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """`concurrency` clients, each sending its next request when the last is answered.

    Ends after `requests` in all, or starts no more after `duration_s`; one of the two is given.
    """

    concurrency: int
    requests: int | None = None
    duration_s: float | None = None

    @property
    def label(self) -> str:
        return f"c={self.concurrency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """`requests` arrivals of a Poisson process with `rate` per second, whatever the answers do."""

    rate: float
    requests: int
    seed: int = 0

    @property
    def label(self) -> str:
        return f"rate={self.rate:g}/s"

    def arrivals(self) -> list[float]:
        """Return the seconds after the start at which requests are due; same seed, same list."""
        source = random.Random(self.seed)
        due_s = 0.0
        schedule = []
        for _ in range(self.requests):
            due_s += source.expovariate(self.rate)
            schedule.append(due_s)
        return schedule


Shape = Closed | Open


async def run_load(call: Call | RpcCall, shape: Shape, *, tick: Tick | None = None) -> RunResult:
    """Run the load once on fresh connections and sum it up; `tick` is called after each request.

    Cancellation aborts the requests in flight.
    """
    async with rpc_exchange(call) if isinstance(call, RpcCall) else http_exchange(call) as exchange:

        async def send(index: int, started_s: float) -> Sample:
            sample = await exchange(index, started_s)
            if tick is not None:
                tick()
            return sample

        started_s, cpu_s = perf_counter(), process_time()
        samples = await (_closed(send, shape) if isinstance(shape, Closed) else _open(send, shape))
        elapsed_s, cpu_s = perf_counter() - started_s, process_time() - cpu_s
    return summarise(
        samples,
        load=shape.label,
        driver="grpc.aio" if isinstance(call, RpcCall) else "aiohttp",
        elapsed_s=elapsed_s,
        client_cpu=cpu_s / max(elapsed_s, 1e-9),
    )


async def _closed(send: Send, shape: Closed) -> list[Sample]:
    numbers = islice(count(), shape.requests)
    ends_s = None if shape.duration_s is None else perf_counter() + shape.duration_s
    samples: list[Sample] = []
    async with asyncio.TaskGroup() as clients:
        for _ in range(shape.concurrency):
            clients.create_task(_client(send, numbers, ends_s, samples))
    return samples


async def _client(
    send: Send, numbers: Iterator[int], ends_s: float | None, samples: list[Sample]
) -> None:
    for number in numbers:
        now_s = perf_counter()
        if ends_s is not None and now_s >= ends_s:
            return
        samples.append(await send(number, now_s))


async def _open(send: Send, shape: Open) -> list[Sample]:
    origin_s = perf_counter()
    tasks: list[asyncio.Task[Sample]] = []
    async with asyncio.TaskGroup() as requests:
        for number, due_s in enumerate(shape.arrivals()):
            await asyncio.sleep(max(0.0, origin_s + due_s - perf_counter()))
            # Times count from when the request was due, so a busy client hides no waiting.
            tasks.append(requests.create_task(send(number, origin_s + due_s)))
    return [task.result() for task in tasks]


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a new event loop, uvloop's where installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def check_answers(result: RunResult, what: str) -> None:
    """Refuse to go on when nothing at all was answered.

    Raises:
        BenchError: no request of the run succeeded.
    """
    if not result.succeeded:
        kinds = ", ".join(f"{kind} x{number}" for kind, number in result.errors.items())
        raise BenchError(f"{what}: no request succeeded ({kinds or 'none was sent'})")
