"""Which TCP ports a cluster on this machine may take for itself."""

import secrets
import socket

HOST = "127.0.0.1"
REPLICA_PORTS = range(20_000, 29_800)
"""Split between the clusters' replicas (`cluster_environment`)."""
_OWN_PORTS = range(30_000, 32_768)
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now, each only once.

    It lies below the range that Linux takes its own choices from (`ip_local_port_range`, from
    32768 on): one of those may be somebody's outgoing connection, or the port of one of Ray's
    processes, before the server that it was meant for gets to it. It also lies outside Ray's own
    (10002 to 19999) and `REPLICA_PORTS`.
    """
    for _ in range(len(_OWN_PORTS)):
        port = secrets.choice(_OWN_PORTS)
        if port in _given:
            continue
        with socket.socket() as listener:
            try:
                listener.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no free port from {_OWN_PORTS[0]} to {_OWN_PORTS[-1]}")
