"""A request as the policy sees it, the same over HTTP and gRPC."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What may be decided upon, besides credentials and model.

    Args:
        protocol: the wire API: `openai`, `caikit`, `tgis`, `kserve`, …
        transport: `http` or `grpc`.
        method: of HTTP; always POST over gRPC.
        path: below the application's route prefix; `/package.Service/Method` over gRPC.
        query: the raw query string.
        headers: names in lower case; of a name that was sent several times, the last value.
        host: as the client wrote it.
        source: the client's address as the server sees it, `""` where it doesn't.
    """

    id: str
    protocol: str
    transport: str = "http"
    method: str = "POST"
    path: str = "/"
    query: str = ""
    scheme: str = "http"
    host: str = ""
    source: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
