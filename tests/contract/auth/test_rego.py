"""A policy in Rego behind a running ingress, over HTTP and gRPC."""

from typing import Any

import grpc
import pytest

from rayserve_platform.pb.kserve_inference_pb2 import ModelMetadataRequest
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.authorities import Issuer
from tests.contract.auth.conftest import policy_of

MODELS = """
name := input.model.adapter if input.model.adapter != ""
else := input.model.name

allow if name in input.auth.identity.models
"""


def rego(issuer: Issuer, text: str) -> dict[str, Any]:
    return policy_of(issuer, authorization={"models": {"opa": {"rego": text}}})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_policy_in_rego_decides_upon_the_model_that_is_called(
    serve: Any, issuer: Issuer
) -> None:
    server = await serve("openai", policy=rego(issuer, MODELS))
    headers = bearer(issuer.token(models=["alpha"]))
    body = {"prompt": "x", "max_tokens": 1}
    seen = {}
    for model in ("alpha", "beta", "gamma"):
        answer = await server.http.post(
            "/v1/completions", json={"model": model, **body}, headers=headers
        )
        seen[model] = answer.status_code
    assert seen == {"alpha": 200, "beta": 404, "gamma": 404}
    listed = await server.http.get("/v1/models", headers=headers)
    assert [card["id"] for card in listed.json()["data"]] == ["alpha"]
    nothing = bearer(issuer.token(models=[]))
    answer = await server.http.post(
        "/v1/completions", json={"model": "alpha", **body}, headers=nothing
    )
    assert answer.status_code == 403


async def test_a_policy_in_rego_that_has_no_value_is_an_outage(serve: Any, issuer: Issuer) -> None:
    text = 'allow if to_number(input.request.headers["x-number"]) > 3'
    server = await serve("kserve", policy=rego(issuer, text))
    headers = bearer(issuer.token(models=["alpha"]))
    stub = GRPCInferenceServiceStub(server.channel)
    cases = (("4", 200, None), ("3", 403, "PERMISSION_DENIED"), ("four", 503, "UNAVAILABLE"))
    for number, status, code in cases:
        sent = {**headers, "x-number": number}
        answer = await server.http.get("/v2/models/alpha", headers=sent)
        assert answer.status_code == status
        asking = stub.ModelMetadata(
            ModelMetadataRequest(name="alpha"), metadata=tuple(sent.items())
        )
        if code is None:
            assert (await asking).name == "alpha"
            continue
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asking
        assert caught.value.code().name == code
        assert "to_number" not in f"{answer.text}{caught.value.details()}"
