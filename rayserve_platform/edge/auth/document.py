"""The authorization JSON: what conditions and values of a policy are about.

Source: Authorino, docs/architecture.md, "The authorization JSON"; `model` is ours.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.expression import ROOTS


class Document:
    """Grows from phase to phase; written down only where somebody reads it.

    Args:
        note: is told every step, where a decision is to be explained.
    """

    def __init__(self, request: Request, note: Callable[[str], None] | None = None) -> None:
        self.request = request
        self.rule = ""
        self.identity: Mapping[str, Any] | None = None
        self.user: Mapping[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self.authorization: dict[str, Any] = {}
        self.target: Target | None = None
        self.note = note
        self._request: dict[str, Any] = {}

    def of(self, target: Target) -> "Document":
        """Return the same request's document for one model."""
        other = Document(self.request, self.note)
        other.rule, other.identity, other.metadata = self.rule, self.identity, self.metadata
        other.user, other.target = self.user, target
        other._request = self._request  # whoever needs it first writes it for all
        return other

    def tell(self, step: str) -> None:
        """Note a step of the decision."""
        if self.note is not None:
            self.note(step)

    def roots(self, names: Collection[str] = ROOTS) -> dict[str, Any]:
        """Return the JSON as it is now, or what it has under these names."""
        roots: dict[str, Any] = {}
        for name in names:
            if name == "auth":
                roots[name] = {
                    "identity": self.identity,
                    "metadata": self.metadata,
                    "authorization": self.authorization,
                }
            elif name == "metadata":
                roots[name] = self.metadata
            elif name != "model":
                roots[name] = self._root_of_request(name)
            elif self.target is not None:
                roots[name] = {
                    "name": self.target.model,
                    "adapter": self.target.adapter or "",
                    "operation": self.target.operation,
                }
        return roots

    def _root_of_request(self, name: str) -> Any:
        if not self._request:
            self._request.update(_written(self.request))
        return self._request[name]


def _written(request: Request) -> dict[str, Any]:
    """Write a request both ways: Authorino's own, and Envoy's below `context`."""
    path = f"{request.path}?{request.query}" if request.query else request.path
    http = {
        "id": request.id,
        "protocol": request.transport,
        "scheme": request.scheme,
        "host": request.host,
        "method": request.method,
        "path": path,
        "headers": dict(request.headers),
    }
    seconds, nanos = divmod(time.time_ns(), 10**9)
    moment = {"seconds": seconds, "nanos": nanos}
    own = {
        **http,
        "time": moment,
        "url_path": request.path,
        "query": request.query,
        "user_agent": request.headers.get("user-agent", ""),
        "referer": request.headers.get("referer", ""),
        "api": request.protocol,
    }
    address, _, port = request.source.rpartition(":")
    peer = {"address": address.strip("[]") or request.source, "port": port if address else ""}
    envoy = {
        "request": {"http": http, "time": moment},
        "source": {"address": {"Address": {"SocketAddress": {"address": peer["address"]}}}},
    }
    return {"request": own, "context": envoy, "source": peer, "destination": {"host": request.host}}
