"""What of an adapter, and of models of one id, a caller may call."""

from dataclasses import replace
from typing import Any

import grpc
import pytest

from rayserve_platform.core.cards import Adapter
from rayserve_platform.pb import generation_pb2 as fmaas
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.authorities import Issuer, bearer
from tests.contract.auth.conftest import runtime


async def test_an_adapter_is_decided_upon_by_its_own_name(serve: Any, issuer: Issuer) -> None:
    server = await serve("tgis", runtime("alpha", adapters=("sql", "law")))
    call = GenerationServiceStub(server.channel).Generate
    token = issuer.token(models=["alpha", "sql"])
    metadata = [("authorization", f"Bearer {token}")]

    async def ask(adapter: str) -> Any:
        request = fmaas.BatchedGenerationRequest(
            adapter_id=adapter, requests=[fmaas.GenerationRequest(text="hi")]
        )
        return await call(request, metadata=metadata)

    await ask("")
    await ask("sql")
    refusals = []
    for adapter in ("law", "nonesuch"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(adapter)
        error = caught.value
        refusals.append((error.code(), (error.details() or "").replace(adapter, "@")))
    assert refusals[0] == refusals[1]
    asked = fmaas.BatchedTokenizeRequest(
        adapter_id="law", requests=[fmaas.TokenizeRequest(text="hi")]
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await GenerationServiceStub(server.channel).Tokenize(asked, metadata=metadata)


def declaring(name: str, adapter: str, **engine: Any) -> Any:
    """Return a runtime whose card tells of its adapter."""
    model = runtime(name, adapters=(adapter,), **engine)
    described = model.describe

    async def describe() -> Any:
        cards = await described()
        return tuple(replace(c, adapters=(Adapter(name=adapter, root=adapter),)) for c in cards)

    model.describe = describe
    return model


@pytest.mark.parametrize(
    ("protocol", "path", "body"),
    [
        ("openai", "/v1/embeddings", {"model": "sql", "input": "x"}),
        ("openai", "/v1/score", {"model": "sql", "text_1": "a", "text_2": "b"}),
        ("openai", "/v1/rerank", {"model": "sql", "query": "a", "documents": ["b"]}),
        ("openai", "/tokenize", {"model": "sql", "prompt": "x"}),
        ("openai", "/detokenize", {"model": "sql", "tokens": [1]}),
        ("caikit", "/api/v1/task/embedding", {"model_id": "sql", "inputs": "hi"}),
        ("caikit", "/api/v1/task/tokenization", {"model_id": "sql", "inputs": "hi"}),
    ],
)
async def test_a_right_to_an_adapter_is_none_to_its_model(
    serve: Any, issuer: Issuer, protocol: str, path: str, body: Any
) -> None:
    model = declaring("alpha", "sql")
    server = await serve(protocol, model)
    for models, is_allowed in ((["sql"], False), (["sql", "alpha"], True)):
        answer = await server.http.post(
            path, json=body, headers=bearer(issuer.token(models=models))
        )
        assert answer.is_success is is_allowed, answer.text
        assert answer.status_code < 500
        assert bool(model.seen) is is_allowed


async def test_tensors_of_an_adapter_are_its_models(serve: Any, issuer: Issuer) -> None:
    model = declaring("alpha", "sql", tasks=("infer",))
    server = await serve("kserve", model)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    for models, is_allowed in ((["sql"], False), (["sql", "alpha"], True)):
        answer = await server.http.post(
            "/v2/models/sql/infer",
            json={"inputs": [tensor]},
            headers=bearer(issuer.token(models=models)),
        )
        assert answer.is_success is is_allowed, answer.text
        assert answer.status_code < 500
        assert bool(model.seen) is is_allowed


async def test_an_adapter_that_a_gateway_is_asked_for_is_what_generates(
    serve: Any, issuer: Issuer
) -> None:
    model = declaring("alpha", "sql")
    server = await serve("tgis", model, runtime("beta"))
    stub = GenerationServiceStub(server.channel)
    metadata = [("authorization", f"Bearer {issuer.token(models=['sql'])}")]
    asked = fmaas.BatchedGenerationRequest(
        model_id="sql", requests=[fmaas.GenerationRequest(text="hi")]
    )
    await stub.Generate(asked, metadata=metadata)
    assert [one.adapter for one in model.seen] == ["sql"]
    tokens = fmaas.BatchedTokenizeRequest(
        model_id="sql", requests=[fmaas.TokenizeRequest(text="hi")]
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Tokenize(tokens, metadata=metadata)
    assert len(model.seen) == 1


@pytest.mark.parametrize("spelling", ["a//sql", "/a/sql", "a/sql/", "a/./sql", "a/b/../sql"])
async def test_another_spelling_of_an_adapter_is_no_adapter(
    serve: Any, issuer: Issuer, spelling: str
) -> None:
    model = runtime("alpha", adapters=(spelling,))
    server = await serve("tgis", model)
    stub = GenerationServiceStub(server.channel)
    metadata = [("authorization", f"Bearer {issuer.token(models=['alpha', spelling])}")]
    generated = fmaas.BatchedGenerationRequest(
        adapter_id=spelling, requests=[fmaas.GenerationRequest(text="hi")]
    )
    tokens = fmaas.BatchedTokenizeRequest(
        adapter_id=spelling, requests=[fmaas.TokenizeRequest(text="hi")]
    )
    for call, asked in ((stub.Generate, generated), (stub.Tokenize, tokens)):
        with pytest.raises(grpc.aio.AioRpcError, match="Invalid adapter id"):
            await call(asked, metadata=metadata)
    assert not model.seen


async def test_two_applications_with_one_id_are_two_models(serve: Any, issuer: Issuer) -> None:
    one, other = runtime("llama"), runtime("llama")
    server = await serve("openai", ("team-a", one), ("team-b", other))
    headers = bearer(issuer.token(models=["team-a"]))
    for model, status in (("team-a", 200), ("team-b", 404)):
        answer = await server.http.post(
            "/v1/completions", json={"model": model, "prompt": "x"}, headers=headers
        )
        assert answer.status_code == status
    assert (len(one.seen), len(other.seen)) == (1, 0)
