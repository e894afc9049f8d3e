"""The paths of both REST APIs."""

from dataclasses import dataclass
from functools import lru_cache

MODELS = "/v2/models/"
REPOSITORY = "/v2/repository/models/"
TFS_MODELS = "/v1/models/"
VERSIONS = "/versions/"
PREDICT = ":predict"
DEFAULT = "0"
"""The version by which TensorFlow Serving's clients, `ovmsclient` among them, ask for any."""

VERBS = {
    "infer": "POST",
    "generate": "POST",
    "generate_stream": "POST",
    "ready": "GET",
}
FIXED = {
    "/v2": ("GET", "server"),
    "/v2/health/live": ("GET", "live"),
    "/v2/health/ready": ("GET", "server_ready"),
    "/v2/models": ("GET", "models"),
    "/v2/repository/index": ("POST", "index"),
    "/v1/config": ("GET", "config"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path means: the verb that answers, for which method, and of which model.

    Args:
        template: the path with `{model}` and `{version}`, for metrics and logs.
    """

    verb: str
    method: str
    template: str
    model: str = ""
    version: str | None = None


@lru_cache(maxsize=1024)
def parse(path: str) -> Target | None:
    """Return what a path means, if it is one of ours. Names of models may hold slashes."""
    if path.startswith(MODELS):
        rest, _, verb = path[len(MODELS) :].rpartition("/")
        if rest and verb in VERBS:
            return _versioned(MODELS, rest, verb, VERBS[verb], "/" + verb)
        return _versioned(MODELS, path[len(MODELS) :], "model", "GET")
    fixed = FIXED.get(path.rstrip("/"))
    if fixed is not None:
        return Target(fixed[1], fixed[0], path.rstrip("/"))
    if path.startswith(REPOSITORY):
        rest, _, verb = path[len(REPOSITORY) :].rpartition("/")
        if rest and verb in ("load", "unload"):
            return Target(verb, "POST", f"{REPOSITORY}{{model}}/{verb}", rest)
        return None
    if path.startswith(TFS_MODELS):
        return _parse_tfs(path[len(TFS_MODELS) :])
    return None


def _parse_tfs(rest: str) -> Target | None:
    if rest.endswith(PREDICT):
        return _versioned(TFS_MODELS, rest.removesuffix(PREDICT), "predict", "POST", PREDICT)
    if rest.endswith("/metadata"):
        rest = rest.removesuffix("/metadata")
        return _versioned(TFS_MODELS, rest, "metadata", "GET", "/metadata")
    return _versioned(TFS_MODELS, rest, "status", "GET")


def _versioned(prefix: str, rest: str, verb: str, method: str, tail: str = "") -> Target | None:
    model, found, version = rest.rpartition(VERSIONS)
    if not found or "/" in version or not model or not version:
        model, found = rest, ""
    if not model:
        return None
    template = f"{prefix}{{model}}{'/versions/{version}' if found else ''}{tail}"
    named = bool(found) and not (prefix == TFS_MODELS and version == DEFAULT)
    return Target(verb, method, template, model, version if named else None)
