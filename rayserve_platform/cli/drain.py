"""Letting what runs finish, before Serve is stopped."""

import time
from collections.abc import Collection

POLL_S = 0.2


def drain(behind: Collection[str], timeout_s: float) -> None:
    """Delete the applications that clients reach, and wait until their replicas are done.

    A deleted application takes no new request and finishes those it has. `serve.shutdown` by itself
    ends Serve's proxies first, and with them every open stream (ray 2.60,
    `ServeController.shutdown`).

    Args:
        behind: applications that stand behind a gateway, which needs them until it is done.
        timeout_s: what is still running then is cut off.
    """
    from ray import serve

    deadline = time.monotonic() + timeout_s
    front = set(serve.status().applications) - set(behind)
    for name in front:
        serve.delete(name, _blocking=False)
    while front & set(serve.status().applications) and time.monotonic() < deadline:
        time.sleep(POLL_S)
