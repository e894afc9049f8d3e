"""A load measurement as asked for on the command line, and its run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from rayserve_platform.bench.calls import Call, Endpoint, Generation, generation_call, server_root
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.exchange import first_model
from rayserve_platform.bench.load import (
    Closed,
    Open,
    Shape,
    Tick,
    check_answers,
    run_blocking,
    run_load,
)
from rayserve_platform.bench.prompts import BUILT_IN, read_prompts
from rayserve_platform.bench.samples import LoadResult, RunResult

# Of the requested settings those that may hold a secret: they stay out of the result file.
_SECRET = ("api_key", "headers")

Progress = Callable[[str, int | None], Tick]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What to send where, how, and how often. Field names are those of the command's options.

    `rate` (open loop, requests per second) takes the place of `concurrency` where given;
    `raw_path` that of the OpenAI request. Times are in seconds.
    """

    url: str
    model: str | None = None
    endpoint: Endpoint = "chat"
    stream: bool = True
    max_tokens: int = 64
    ignore_eos: bool = False
    prompts: Path | None = None
    raw_path: str | None = None
    body: str = "{}"
    api_key: str | None = None
    headers: tuple[str, ...] = ()
    timeout_s: float = 300.0
    concurrency: tuple[int, ...] = ()
    rate: tuple[float, ...] = ()
    seed: int = 0
    requests: int = 32
    duration_s: float | None = None
    runs: int = 3
    warmup: int = 4

    def shapes(self) -> tuple[Shape, ...]:
        """Return the loads to run.

        Raises:
            BenchError: options that exclude each other.
        """
        if self.rate and (self.concurrency or self.duration_s):
            raise BenchError("--rate (open loop) goes with neither --concurrency nor --duration")
        if self.rate:
            return tuple(
                Open(rate=rate, requests=self.requests, seed=self.seed) for rate in self.rate
            )
        requests = None if self.duration_s else self.requests
        return tuple(
            Closed(concurrency=clients, requests=requests, duration_s=self.duration_s)
            for clients in self.concurrency or (1,)
        )

    def call(self) -> Call:
        """Return the request to repeat; asks the server for its first model if none is named.

        Raises:
            BenchError: a malformed option, or the server doesn't tell a model.
        """
        if not self.url.startswith(("http://", "https://")):
            raise BenchError(f"URL {self.url!r} must start with http:// or https://")
        headers = self._headers()
        if self.raw_path is not None:
            path = "/" + self.raw_path.lstrip("/")
            return Call(
                url=server_root(self.url) + path, bodies=(self._raw_body(),), headers=headers,
                timeout_s=self.timeout_s, openai=False,
            )  # fmt: skip
        generation = Generation(
            endpoint=self.endpoint,
            stream=self.stream,
            max_tokens=self.max_tokens,
            ignore_eos=self.ignore_eos,
        )
        prompts = read_prompts(self.prompts) if self.prompts else BUILT_IN
        return generation_call(
            self.url,
            generation,
            model=self.model or run_blocking(first_model(self.url, headers)),
            prompts=prompts,
            headers=headers,
            timeout_s=self.timeout_s,
        )

    def settings(self) -> dict[str, object]:
        """Return the fields as a JSON object, without those that may hold a secret."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in values.items()
            if name not in _SECRET
        }

    def _headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        for header in self.headers:
            name, colon, value = header.partition(":")
            if not colon or not name.strip():
                raise BenchError(f"--header {header!r} must read 'Name: value'")
            headers[name.strip()] = value.strip()
        return headers

    def _raw_body(self) -> bytes:
        try:
            json.loads(self.body)
        except ValueError as error:
            raise BenchError(f"--body is not JSON: {error}") from error
        return self.body.encode()


def measure(plan: LoadPlan, progress: Progress) -> list[LoadResult]:
    """Warm up, then run every load of the plan; `progress` opens a bar and returns its tick.

    A bar's total is the number of requests, None where the load ends by time.

    Raises:
        BenchError: the plan is malformed, or no request of the warm-up succeeds.
    """
    shapes, call = plan.shapes(), plan.call()
    if plan.warmup:
        warm_up = Closed(concurrency=min(plan.warmup, _clients(shapes[0])), requests=plan.warmup)
        result = run_blocking(run_load(call, warm_up, tick=progress("warm-up", plan.warmup)))
        check_answers(result, call.url)
    results = []
    for shape in shapes:
        runs: list[RunResult] = []
        for number in range(1, plan.runs + 1):
            tick = progress(f"{shape.label} run {number}/{plan.runs}", shape.requests)
            runs.append(run_blocking(run_load(call, shape, tick=tick)))
        results.append(LoadResult(load=shape.label, runs=tuple(runs)))
    return results


def _clients(shape: Shape) -> int:
    return shape.concurrency if isinstance(shape, Closed) else 1
