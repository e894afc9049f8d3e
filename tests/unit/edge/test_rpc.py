"""The gRPC status table."""

import grpc

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.rpc import STATUS


def test_every_code_has_a_grpc_status_of_its_own() -> None:
    assert set(STATUS) == set(Code)
    assert len(set(STATUS.values())) == len(Code)
    assert grpc.StatusCode.OK not in STATUS.values()
    assert grpc.StatusCode.UNKNOWN not in STATUS.values()
