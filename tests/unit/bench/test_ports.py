import socket

import pytest

from rayserve_platform.bench import ports
from rayserve_platform.bench.ports import HOST, free_port


def test_a_port_is_not_given_while_somebody_listens_on_it(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        monkeypatch.setattr(ports, "_OWN_PORTS", [listener.getsockname()[1]])
        with pytest.raises(OSError, match="no free port"):
            free_port()


def test_a_port_is_given_only_once():
    given = [free_port() for _ in range(50)]
    assert len(set(given)) == 50


def test_ports_of_a_cluster_lie_outside_those_that_ray_takes_by_itself():
    """Ray's worker ports (10002 to 19999) and its dashboard agent's (52365)."""
    taken = {*range(10_002, 20_000), 52_365}
    assert not taken & {*ports.REPLICA_PORTS, *ports._OWN_PORTS}
