"""What the edge records of every request: Prometheus metrics and one access-log line.

The metrics are this replica's own, in `prometheus_client`'s default registry, beside those that an
engine in the same process keeps there. Never a prompt, never a credential.
"""

import logging
import secrets
from dataclasses import dataclass
from functools import cache

import orjson
from prometheus_client import Counter, Gauge, Histogram

from rayserve_platform.core.principal import Principal

REQUESTS = Counter(
    "rayserve_requests", "Requests answered, by result.", ("protocol", "route", "model", "code")
)
LATENCY = Histogram(
    "rayserve_request_duration_seconds",
    "Seconds from the request's head to the end of its answer.",
    ("protocol", "route", "model"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
IN_PROGRESS = Gauge(
    "rayserve_requests_in_progress", "Requests now in this ingress replica.", ("protocol",)
)

REQUEST_ID_CHARS = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+=@"
)
MAX_REQUEST_ID_BYTES = 128

log = logging.getLogger("rayserve.access")


def request_id(sent: bytes | None) -> str:
    """Take the client's id if it is short and plain (it goes into logs), else make one."""
    if sent and len(sent) <= MAX_REQUEST_ID_BYTES and REQUEST_ID_CHARS.issuperset(sent):
        return sent.decode()
    return secrets.token_hex(16)


@dataclass(slots=True, kw_only=True)
class Record:
    """What is known of one request; filled in as it is found out."""

    protocol: str
    request_id: str
    route: str = "none"
    """The route's template, never the raw path: it becomes a metric label."""
    model: str = ""
    """The served model's own id, never the caller's text: it becomes a metric label."""
    code: int | str = ""
    client_gone: bool = False
    principal: Principal | None = None
    """Whose credentials came with it, once they have been verified."""
    refused_by: str = ""
    """The rule that its caller may not make it, or not now."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    """As the engine counts them; both stay 0 where nobody asks."""


@cache
def in_progress(protocol: str) -> Gauge:
    """Return the gauge of a protocol."""
    return IN_PROGRESS.labels(protocol)


@cache
def _children(protocol: str, route: str, model: str, code: str) -> tuple[Counter, Histogram]:
    """Return the metrics with these label values; there are few, as `Record` says."""
    return (
        REQUESTS.labels(protocol, route, model, code),
        LATENCY.labels(protocol, route, model),
    )


def finish(record: Record, *, duration_s: float, access_log: bool) -> None:
    """Count the request and write its line."""
    counter, histogram = _children(record.protocol, record.route, record.model, str(record.code))
    counter.inc()
    histogram.observe(duration_s)
    if access_log:
        line = {
            "request_id": record.request_id,
            "protocol": record.protocol,
            "route": record.route,
            "model": record.model,
            "code": record.code,
            "duration_ms": round(duration_s * 1000, 2),
        }
        if record.client_gone:
            line["client_gone"] = True
        log.info(orjson.dumps(line).decode())


def merge(texts: list[bytes]) -> bytes:
    """Join expositions of several processes: each metric family's lines stand together, named once.

    Source: Prometheus text format 0.0.4, "all lines for a given metric must be one group".
    """
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for text in texts:
        heads, samples = families.setdefault(b"", ([], []))
        for line in text.splitlines():
            if line.startswith((b"# HELP ", b"# TYPE ")):
                name = line.split(b" ", 3)[2]
                heads, samples = families.setdefault(name, ([], []))
                if line not in heads:
                    heads.append(line)
            elif line:
                samples.append(line)
    lines = [line for heads, samples in families.values() for line in (*heads, *samples)]
    return b"\n".join([*lines, b""])
