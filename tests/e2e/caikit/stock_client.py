"""A stock gRPC client of Caikit's, in a process of its own: calls for some seconds, tells failures.

Usage: stock_client.py TARGET MODEL SECONDS
"""

import sys
import time

import grpc

from rayserve_platform.pb import caikit_nlp_service_pb2 as nlp
from rayserve_platform.pb import caikit_nlp_service_pb2_grpc as rpc


def main() -> None:
    """Call one after the other until time is up, a new channel now and then."""
    target, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    ends = time.monotonic() + seconds
    served = 0
    while time.monotonic() < ends:
        with grpc.insecure_channel(target) as channel:
            stub = rpc.NlpServiceStub(channel)
            for _ in range(20):
                request = nlp.EmbeddingTaskRequest(text=f"sentence {served}")
                try:
                    stub.EmbeddingTaskPredict(
                        request, metadata=[("mm-model-id", model)], timeout=60
                    )
                except grpc.RpcError as error:
                    sys.stdout.write(f"failed: {error.code().name} {error.details()}\n")
                served += 1
    sys.stdout.write(f"served: {served}\n")


if __name__ == "__main__":
    main()
