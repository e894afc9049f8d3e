"""Asks a model that runs in a process of its own, without any API, for its times."""

from __future__ import annotations

import http.client
import json
from dataclasses import replace

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.ports import HOST
from rayserve_platform.bench.samples import RunResult, Sample, summarise
from rayserve_platform.bench.server import Server


def batches(
    server: Server, path: str, *, size: int, label: str, seconds: float, timeout_s: float
) -> RunResult:
    """Let it compute `size` texts or rows at once, again and again, as POST `path` says.

    Raises:
        BenchError: no answer, or one without times.
    """
    match post(server, path, {}, timeout_s=timeout_s + seconds):
        case {"elapsed_s": float(elapsed_s), "latencies_s": list(latencies_s)}:
            samples = [Sample(latency_s=float(latency_s)) for latency_s in latencies_s]
        case _:
            raise BenchError(f"{server.command.name} did not say how long its runs took")
    result = summarise(
        samples, load=label, driver="in process", elapsed_s=elapsed_s, client_cpu=None
    )
    return replace(result, ceiling=label, texts_per_s=size * len(samples) / elapsed_s)


def post(server: Server, path: str, body: object, *, timeout_s: float) -> object:
    """Return the JSON that POST `path` answers to a JSON body.

    Raises:
        BenchError: no answer, or none in JSON.
    """
    connection = http.client.HTTPConnection(HOST, server.command.port, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BenchError(f"{server.command.name}: {path} failed: {error!r}") from error
    finally:
        connection.close()
