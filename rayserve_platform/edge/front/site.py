"""What a TLS edge has to know, whichever server it is rendered for."""

import re
from dataclasses import dataclass
from pathlib import Path

ADDRESS = re.compile(r"(?:\*|[0-9A-Za-z.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
PLAIN = re.compile(r"[A-Za-z0-9_./@+-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One port with TLS in front of Serve's two.

    Args:
        listen: address and port, `*` for every address.
        certificate: PEM file of the certificate and its chain; of the key as well where `key` is
            None.
        http: address and port of Serve's HTTP proxy.
        grpc: the same of its gRPC proxy; None where Serve has none.
        one_app: whether Serve routes to one application only, so that nobody has to choose.
        client_ca: PEM file of authorities; certificates of clients that they signed are handed on.
        user: the account to run as, for a server that is started as root.
        max_body_bytes: of a request.
        header_s: for a request's head to arrive.
        idle_s: between two pieces of a request, or of an answer that the client is slow to read.
        answer_s: between two pieces of an answer.
    """

    listen: str
    certificate: Path
    http: str
    grpc: str | None = None
    key: Path | None = None
    one_app: bool = True
    client_ca: Path | None = None
    user: str | None = None
    max_body_bytes: int = 32 * 2**20
    max_connections: int = 2000
    max_streams: int = 100
    header_s: int = 10
    idle_s: int = 300
    answer_s: int = 3600

    def __post_init__(self) -> None:
        """Refuse what would not stand in a config file as one word.

        Raises:
            ValueError: naming the field.
        """
        for name in ("listen", "http", "grpc"):
            value = getattr(self, name)
            found = None if value is None else ADDRESS.fullmatch(value)
            if value is not None and (found is None or not 0 < int(found[1]) < 65536):
                raise ValueError(f"{name}: must be ADDRESS:PORT, got '{value}'")
        for name in ("certificate", "key", "client_ca", "user"):
            value = getattr(self, name)
            if value is not None and not PLAIN.fullmatch(str(value)):
                raise ValueError(f"{name}: '{value}' has characters that a config file can't hold")


NOT_FOUND = "Unknown request URL."
ODD = "The request is malformed."
TOO_LARGE = "The request body is larger than {limit:g} MiB."
TEXTS = {
    400: ODD,
    408: "The request did not arrive in time.",
    429: "There are too many requests. Retry later.",
    500: "internal error",
    502: "The server behind the edge gave no answer.",
    503: "The server behind the edge is not available. Retry later.",
    504: "The server behind the edge did not answer in time.",
}
"""What an edge says itself, by status. What stands behind it answers everything else."""


def body(status: int, text: str) -> str:
    """Return the JSON of an error; an edge does not know which protocol a caller speaks."""
    return f'{{"error":{{"message":"{text}","code":{status}}}}}'


def header_pattern(names: tuple[str, ...]) -> str:
    """Return a pattern of headers by the beginnings of their names, with `_` for `-` too."""
    return "^(" + "|".join(name.replace("-", "[-_]") for name in names) + ")"
