"""The allow-list: every route this ingress answers, and nothing else.

What is not listed is 404 whatever an engine's own server would do with it: vLLM's development and
operator routes (sleep, pause, weights, LoRA loading, profiling, /invocations, collective RPC,
elastic scaling, …) are not reachable from outside.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One allowed route.

    Args:
        template: the path, with `{name}` for one segment.
        verb: how the ingress answers by itself when the runtime has no code of its own for the
            route; None where only a native runtime can.
        local: answered by the ingress even when the runtime has code of its own.
        what: said to a caller whose model cannot do it.
    """

    method: str
    template: str
    verb: str | None = None
    local: bool = False
    what: str = ""

    @property
    def key(self) -> str:
        """How `ModelCard.native` spells it."""
        return f"{self.method} {self.template}"


ROUTES = (
    Route(method="GET", template="/health", verb="health", local=True),
    Route(method="GET", template="/version", verb="version", local=True),
    Route(method="GET", template="/docs", verb="docs", local=True),
    Route(method="GET", template="/openapi.json", verb="openapi", local=True),
    Route(method="GET", template="/v1/models", verb="models", local=True),
    Route(method="GET", template="/v1/models/{model}", verb="model", local=True),
    Route(method="POST", template="/v1/chat/completions", verb="chat", what="chat completions"),
    Route(method="POST", template="/v1/completions", verb="completion", what="completions"),
    Route(method="POST", template="/v1/embeddings", verb="embeddings", what="embeddings"),
    Route(method="POST", template="/tokenize", verb="tokenize", what="tokenizing"),
    Route(method="POST", template="/detokenize", verb="detokenize", what="detokenizing"),
    Route(method="POST", template="/v1/responses", what="the Responses API"),
    Route(method="GET", template="/v1/responses/{response_id}", what="the Responses API"),
    Route(method="POST", template="/v1/responses/{response_id}/cancel", what="the Responses API"),
    Route(method="POST", template="/v1/messages", what="the Messages API"),
    Route(method="POST", template="/v1/messages/count_tokens", what="the Messages API"),
    Route(method="POST", template="/v1/score", verb="score", what="scoring"),
    Route(method="POST", template="/score", verb="score", what="scoring"),
    Route(method="POST", template="/v1/rerank", verb="rerank", what="reranking"),
    Route(method="POST", template="/v2/rerank", verb="rerank", what="reranking"),
    Route(method="POST", template="/rerank", verb="rerank", what="reranking"),
    Route(method="POST", template="/pooling", what="pooling"),
    Route(method="POST", template="/classify", what="classification"),
    Route(method="POST", template="/v1/audio/transcriptions", what="transcription"),
    Route(method="POST", template="/v1/audio/translations", what="translation"),
)

EXACT = {(route.method, route.template): route for route in ROUTES if "{" not in route.template}
PATTERNS = tuple((route, route.template.split("/")) for route in ROUTES if "{" in route.template)
METHODS = {
    template: tuple(route.method for route in ROUTES if route.template == template)
    for _, template in EXACT
}
"""The methods allowed on each exact path."""


def match(method: str, path: str) -> tuple[Route | None, dict[str, str], tuple[str, ...]]:
    """Find the route of a request.

    Returns:
        The route or None, its path parameters, and (where only the method is wrong) the methods
        that the path allows.
    """
    method = "GET" if method == "HEAD" else method
    route = EXACT.get((method, path))
    if route is not None:
        return route, {}, ()
    allowed = METHODS.get(path, ())
    if allowed:
        return None, {}, allowed
    for route, pattern in PATTERNS:
        parameters = _fit(pattern, path)
        if parameters is not None:
            if route.method == method:
                return route, parameters, ()
            allowed = (*allowed, route.method)
    return None, {}, allowed


def _fit(pattern: list[str], path: str) -> dict[str, str] | None:
    """Match one path against a template's segments.

    Model names may hold slashes (`org/model`), so a parameter that ends a template takes the rest.
    """
    parts = path.split("/")
    if len(parts) < len(pattern):
        return None
    if len(parts) > len(pattern):
        if not pattern[-1].startswith("{model"):
            return None
        parts = [*parts[: len(pattern) - 1], "/".join(parts[len(pattern) - 1 :])]
    found: dict[str, str] = {}
    for want, got in zip(pattern, parts, strict=True):
        if want.startswith("{"):
            if not got:
                return None
            found[want[1:-1]] = got
        elif want != got:
            return None
    return found
