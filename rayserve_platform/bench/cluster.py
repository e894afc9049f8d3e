"""What keeps a peer's local Ray cluster small and apart from any other on the machine.

Data only: `ray` itself is imported in the peer scripts.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from rayserve_platform.bench.ports import HOST, REPLICA_PORTS, free_port

_PORTS = 100

# Logical CPUs: enough for every actor of a peer to be placed, on a machine of any size. The
# operating system shares the real ones out, for each server alike.
INIT_OPTIONS: dict[str, Any] = {
    "address": "local",
    "num_cpus": 16,
    "include_dashboard": False,
    "object_store_memory": 100_000_000,
    "log_to_driver": True,
    "_node_ip_address": HOST,
}


def http_options(port: int) -> dict[str, Any]:
    """Return Serve's HTTP options for a loopback port."""
    return {"host": HOST, "port": port}


def cluster_environment(folder: Path) -> dict[str, str]:
    """Return the variables that give a cluster its own files, ports and token.

    `folder` must be short: Ray's unix sockets below it may have paths of 107 bytes at most.
    HAProxy's ports and files and the replicas' port range are fixed by default. Two clusters on a
    machine would share them, and silently: replicas bind with SO_REUSEPORT, so that requests for
    one cluster reach the other.
    """
    haproxy = folder / "haproxy"
    first = secrets.choice(REPLICA_PORTS[:: 2 * _PORTS])
    return {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray runs its workers at niceness 15. The load generator and a server without Ray run at
        # 0 on the same cores, and would be served first.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _PORTS - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(first + _PORTS),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(first + 2 * _PORTS - 1),
        # Serve kills a proxy that isn't ready within 5 s, and its start fails with it: too short on
        # a small or busy machine.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # The peers end with their cluster; nothing waits for their last requests.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
