"""caikit-nlp-client against a server: run in a process of its own, since a process can hold the
messages of one definition only. Prints what it got as JSON.

    client.py grpc HOST PORT MODEL | client.py http URL MODEL
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from caikit_nlp_client import GrpcClient, HttpClient  # type: ignore[import-untyped]


def told(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call gives or what it raises."""
    try:
        return {"result": call()}
    except Exception as error:  # noqa: BLE001  # the test says which it must be
        return {"error": type(error).__name__, "text": str(error)}


def main(transport: str, *args: str) -> None:
    model = args[-1]
    client: Any
    if transport == "grpc":
        client = GrpcClient(args[0], int(args[1]), insecure=True)
    else:
        client = HttpClient(args[0])
    got = {
        "parameters": told(client.get_text_generation_parameters),
        "generate": told(lambda: client.generate_text(model, "x", max_new_tokens=4)),
        "stream": told(lambda: list(client.generate_text_stream(model, "x", max_new_tokens=4))),
    }
    print(json.dumps(got), flush=True)  # noqa: T201  # its output is read by the test
    # Not by the interpreter's own end: the client closes its channel where it is collected, and
    # where that meets a lock of gRPC's that this thread holds, the process stands still for ever.
    os._exit(0)


main(*sys.argv[1:])
