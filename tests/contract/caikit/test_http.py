"""What the recordings do not show of the REST API: several models, forms, links, documents."""

import contextlib
from dataclasses import replace
from typing import Any

import httpx
import pytest

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.protocols.caikit.http import CaikitHttp
from rayserve_platform.protocols.caikit.tasks import TASKS
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.settings.app import Ingress
from tests.conftest import fake_runtime, listening
from tests.contract.caikit.conftest import MODEL, caikit, call

EMBEDDING = "/api/v1/task/embedding"


class Several:
    """A runtime with two models, one of which could not be loaded."""

    def __init__(self) -> None:
        self._fake = fake_runtime(id=MODEL, aliases=("minilm",))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name)

    async def describe(self) -> tuple[ModelCard, ...]:
        (card,) = await self._fake.describe()
        return card, replace(card, id="broken", aliases=(), problem="no weights in /secret")


async def test_a_model_that_could_not_be_loaded_is_listed_and_not_loaded():
    async with caikit(Several()) as server:
        listed = (await server.http.get("/info/models")).json()["models"]
        assert [(model["name"], model["loaded"]) for model in listed] == [
            (MODEL, True),
            ("broken", False),
        ]
        assert "secret" not in str(listed)
        (one,) = (await server.http.get("/info/models?model_ids=broken")).json()["models"]
        assert one == listed[1]
        answer = await server.http.post(EMBEDDING, json={"model_id": "broken", "inputs": "x"})
        assert (answer.status_code, answer.json()["details"]) == (404, "Model 'broken' not loaded")
        assert await call(server, "EmbeddingTaskPredict", b"", ("mm-model-id", "broken")) == (
            "NOT_FOUND"
        )


async def test_a_model_answers_to_its_other_names():
    async with caikit(Several()) as server:
        answer = await server.http.post(EMBEDDING, json={"model_id": "minilm", "inputs": "x"})
        assert answer.status_code == 200
        (one,) = (await server.http.get("/info/models?model_ids=minilm")).json()["models"]
        assert one["name"] == MODEL


class Loading:
    """A runtime that can't be reached yet."""

    async def describe(self) -> tuple[ModelCard, ...]:
        raise PlatformError(Code.UNAVAILABLE, "The model is loading.", retry_after_s=5)


async def test_a_model_that_is_loading_is_unavailable_not_unknown():
    async with caikit(Loading()) as server:
        answer = await server.http.post(EMBEDDING, json={"model_id": "m", "inputs": "x"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert await call(server, "EmbeddingTaskPredict", b"") == "UNAVAILABLE"


async def test_health_follows_the_engine(fake):
    runtime = fake_runtime(id=MODEL)
    async with caikit(runtime) as server:
        well = await server.http.get("/health")
        assert (well.status_code, well.text) == (200, "OK")
        assert well.headers["content-type"] == "text/plain; charset=utf-8"
        runtime.healthy = False
        assert (await server.http.get("/health")).status_code == 503


async def test_metrics_are_served_and_count_caikits_routes(fake):
    server = await fake()
    await server.http.post(EMBEDDING, json={"model_id": MODEL, "inputs": "x"})
    text = (await server.http.get("/metrics")).text
    assert f'protocol="caikit",route="{EMBEDDING}"' in text


@pytest.mark.parametrize("path", [EMBEDDING, "/info/models", "/health"])
async def test_a_slash_too_many_is_sent_where_the_path_is(fake, path):
    server = await fake()
    answer = await server.http.get(f"{path}/?a=b")
    assert (answer.status_code, answer.headers["location"]) == (307, f"{path}?a=b")
    assert (await server.http.get("/nothing/")).status_code == 404


async def test_the_documents_describe_every_route_or_are_switched_off(fake):
    server = await fake()
    document = (await server.http.get("/openapi.json")).json()
    assert {f"/api/v1/task/{task.name}" for task in TASKS} < document["paths"].keys()
    operation = document["paths"]["/api/v1/task/rerank"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    (parameters,) = schema["properties"]["parameters"]["allOf"]
    assert parameters["properties"]["top_n"]["type"] == "integer"
    assert "$ref" not in str(document)
    assert "openapi.json" in (await server.http.get("/docs")).text
    bare = await fake(ingress={"docs": False})
    for path in ("/docs", "/openapi.json"):
        assert (await bare.http.get(path)).status_code == 404


def form(**fields: str | list[str]) -> list[tuple[str, tuple[None, str]]]:
    listed = [
        (name.replace("__", "."), value)
        for name, values in fields.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return [(name, (None, value)) for name, value in listed]


async def test_a_form_is_a_body_with_dots_for_what_is_nested(fake):
    server = await fake()
    sent = form(model_id=MODEL, inputs=["a", "b"])
    answer = await server.http.post("/api/v1/task/embedding-tasks", files=sent)
    assert len(answer.json()["results"]["vectors"]) == 2
    sent = form(model_id=MODEL, inputs=["a"])
    answer = await server.http.post("/api/v1/task/embedding-tasks", files=sent)
    assert len(answer.json()["results"]["vectors"]) == 1
    sent = form(model_id=MODEL, inputs__source_sentence="a", inputs__sentences=["a", "b"])
    answer = await server.http.post("/api/v1/task/sentence-similarity", files=sent)
    assert len(answer.json()["result"]["scores"]) == 2


async def test_a_file_in_a_form_is_its_text(fake):
    server = await fake()
    files = {"model_id": (None, MODEL), "inputs": ("text.txt", b"abc")}
    answer = await server.http.post(EMBEDDING, files=files)
    assert answer.json()["input_token_count"] == 3
    files["inputs"] = ("text.txt", b"\xff")
    answer = await server.http.post(EMBEDDING, files=files)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"inputs": "x"}, 400),
        ({"model_id": MODEL, "inputs": "x", "parameters__nope": "1"}, 422),
        ({"model_id": MODEL, "inputs": "x", "parameters__truncate_input_tokens": "a"}, 422),
        ({"model_id": MODEL, "inputs": "x", "inputs__a": "b"}, 400),
        ({"model_id": MODEL, "inputs__a": "b", "inputs": "x"}, 400),
        ({"__".join("abcdefghij"): "x"}, 400),
    ],
)
async def test_a_form_that_is_wrong_is_refused(fake, fields, status):
    server = await fake()
    answer = await server.http.post(EMBEDDING, files=form(**fields))
    assert answer.status_code == status, answer.text


async def test_an_absent_content_type_is_415(fake):
    server = await fake()
    answer = await server.http.post(EMBEDDING)
    assert (answer.status_code, answer.json()) == (
        415,
        {"detail": "Unsupported media type: none given."},
    )


@contextlib.asynccontextmanager
async def both(first: str):
    """An ingress that speaks two protocols; the first one has the paths that both have."""
    catalog = Catalog([fake_runtime(id=MODEL)])
    made: dict[str, Any] = {
        "caikit": CaikitHttp(catalog, max_new_tokens=1024),
        "openai": OpenAIHttp(catalog),
    }
    protocols = [made.pop(first), *made.values()]
    async with (
        listening(HttpEdge(protocols, Ingress())) as url,
        httpx.AsyncClient(base_url=url, verify=False, trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize(("first", "health"), [("caikit", "OK"), ("openai", "")])
async def test_two_protocols_share_an_ingress(first, health):
    async with both(first) as client:
        assert (await client.get("/health")).text == health
        sent = {"model_id": MODEL, "inputs": "x"}
        assert "producer_id" in (await client.post(EMBEDDING, json=sent)).json()
        sent = {"model": MODEL, "input": "x"}
        assert "data" in (await client.post("/v1/embeddings", json=sent)).json()
        unknown = (await client.get("/nothing")).json()
        assert unknown.keys() == ({"detail"} if first == "caikit" else {"error"})
