"""The allow-list as a table: what the installed vLLM has beside it, methods, names, odd paths."""

import ast
import importlib.util
import weakref
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.protocols.openai.answer import ANSWERS
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.protocols.openai.routes import ROUTES, match
from rayserve_platform.protocols.openai.schema import BODIES

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")

DANGEROUS = (
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/pause",
    "/resume",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/collective_rpc",
    "/load_lora_adapter",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/start_profile",
    "/stop_profile",
    "/invocations",
    "/ping",
    "/server_info",
    "/update_weights",
    "/init_weight_transfer_engine",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/inference/v1/generate",
    "/abort_requests",
    "/generative_scoring",
    "/load",
    "/kv_event_sources",
    "/tokenizer_info",
    "/v1/systemone",
    "/v1/chat/completions/render",
    "/v1/chat/completions/batch",
)


@cache
def vllm_paths() -> frozenset[str]:
    """Return every path that the installed vLLM's servers register, read from its source."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0]) / "entrypoints"
    kinds = {"get", "post", "put", "patch", "delete", "websocket", "add_api_route", "mount"}
    found = set()
    for source in root.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) in kinds:
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and str(first.value).startswith("/"):
                    found.add(str(first.value))
    return frozenset(found)


def test_vllms_routes_are_found_in_its_source():
    paths = vllm_paths()
    assert len(paths) > 50
    ours = {route.template for route in ROUTES if not route.local}
    assert {path for path in DANGEROUS if path not in paths} == {"/load_lora_adapter"}
    assert ours <= paths


@pytest.mark.parametrize(
    "path", sorted((vllm_paths() - {route.template for route in ROUTES}) | set(DANGEROUS))
)
def test_a_route_of_vllm_that_is_not_listed_has_no_match(path):
    for method in METHODS:
        assert match(method, path)[0] is None or path == "/v1/responses/render"


def test_render_of_a_response_is_no_route_but_the_name_of_a_stored_response():
    assert match("POST", "/v1/responses/render")[0] is None
    route, parameters, _ = match("GET", "/v1/responses/render")
    assert route is not None
    assert parameters == {"response_id": "render"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.key)
def test_every_route_matches_itself_and_only_its_methods(route):
    path = route.template.replace("{model}", "m").replace("{response_id}", "r")
    own = {r.method for r in ROUTES if r.template == route.template}
    for method in METHODS:
        found, _, allowed = match(method, path)
        if method in own or (method == "HEAD" and "GET" in own):
            assert found is not None
            assert found.template == route.template
            assert allowed == ()
        else:
            assert found is None
            assert set(allowed) == own


def test_a_route_is_answered_here_or_says_what_a_model_cannot_do():
    for route in ROUTES:
        if route.local:
            assert hasattr(OpenAIHttp, f"_{route.verb}")
        else:
            assert route.what
        if route.verb and not route.local:
            assert route.verb in ANSWERS
            assert route.verb in BODIES


def test_no_route_is_listed_twice():
    assert len({route.key for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize(
    "model", ["m", "org/model", "a/b/c/d", "with space", "ünï", "..", "v1/models", "m/", "a//b"]
)
def test_a_model_name_is_the_rest_of_the_path(model):
    route, parameters, _ = match("GET", f"/v1/models/{model}")
    assert route is not None
    assert route.template == "/v1/models/{model}"
    assert parameters == {"model": model}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/v1/chat/completions/",
        "/V1/models",
        "/v1/Models",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completions;x",
        "/v1/./models",
        "/v1/../sleep",
        "/health/",
        "/Health",
        "v1/models",
        " /v1/models",
        "/v1/models\x00",
        "/v1/responses/",
        "/v1/responses//cancel",
        "/v1/responses/a/b",
        "/v1/responses/a/cancel/b",
        "/v1/{model}",
    ],
)
def test_a_path_that_only_resembles_a_route_is_none(path):
    for method in METHODS:
        assert match(method, path) == (None, {}, ())


@given(st.sampled_from(METHODS), st.text(alphabet="/v1modelschatresponsescancel.%{} ", max_size=40))
def test_what_matches_is_always_a_route_of_the_list(method, path):
    route, parameters, allowed = match(method, path)
    if route is None:
        assert parameters == {}
        return
    assert allowed == ()
    assert route.template.format_map(parameters) == path


class RememberedPath(str):
    """A path of which a test can tell whether anything still holds it."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("path", ["/made/up", "/v1/models/made/up"])
def test_a_path_that_a_client_made_up_is_not_kept(path):
    made_up = RememberedPath(path)
    match("GET", made_up)
    kept = weakref.ref(made_up)
    del made_up
    assert kept() is None
