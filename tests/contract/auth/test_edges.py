"""What both edges do about tokens besides deciding: lists, headers, outages, what is open."""

import asyncio
import contextlib
import http.client
import logging
from typing import Any

import grpc
import pytest

from rayserve_platform.pb import kserve_inference_pb2 as oip
from rayserve_platform.pb.caikit_info_pb2 import ModelInfoRequest
from rayserve_platform.pb.caikit_info_service_pb2_grpc import InfoServiceStub
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.authorities import Issuer, bearer, running
from tests.contract.auth.conftest import policy_of, runtime
from tests.kube import KubeApi

LISTS = {
    "openai": ("GET", "/v1/models", lambda body: {one["id"] for one in body["data"]}),
    "caikit": ("GET", "/info/models", lambda body: {one["name"] for one in body["models"]}),
    "kserve": ("POST", "/v2/repository/index", lambda body: {one["name"] for one in body}),
}


@pytest.mark.parametrize("protocol", LISTS)
async def test_a_list_has_what_its_caller_may_call(
    serve: Any, issuer: Issuer, protocol: str
) -> None:
    server = await serve(protocol)
    method, path, names = LISTS[protocol]
    for models in (["alpha"], ["beta"], ["alpha", "beta"]):
        headers = bearer(issuer.token(models=models))
        answer = await server.http.request(method, path, headers=headers)
        assert names(answer.json()) == set(models)
    none = await server.http.request(method, path, headers=bearer(issuer.token(models=[])))
    assert none.status_code == 403


async def test_a_list_over_grpc_has_what_its_caller_may_call(serve: Any, issuer: Issuer) -> None:
    server = await serve("caikit")
    token = issuer.token(models=["beta"])
    call = InfoServiceStub(server.channel).GetModelsInfo
    answer = await call(ModelInfoRequest(), metadata=[("authorization", f"Bearer {token}")])
    assert [model.name for model in answer.models] == ["beta"]


async def test_an_unknown_name_is_answered_with_the_callers_own_models_only(
    serve: Any, issuer: Issuer
) -> None:
    server = await serve("openai")
    answer = await server.http.post(
        "/v1/completions",
        json={"model": "alpha", "prompt": "x"},
        headers=bearer(issuer.token(models=["beta"])),
    )
    assert answer.json()["error"]["message"] == (
        "The model 'alpha' does not exist. Served models: beta."
    )


async def test_a_single_model_that_is_forbidden_is_refused_by_name_or_not(
    serve: Any, issuer: Issuer
) -> None:
    server = await serve("openai", runtime("alpha"))
    headers = bearer(issuer.token(models=[]))
    for body in (
        {"prompt": "x"},
        {"model": "alpha", "prompt": "x"},
        {"model": "no", "prompt": "x"},
    ):
        answer = await server.http.post("/v1/completions", json=body, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["message"] == "You are not allowed to do this."
    assert not server.runtimes["alpha"].seen


async def test_each_message_of_a_stream_is_decided_upon(serve: Any, issuer: Issuer) -> None:
    inputs = {"x": {"shape": [-1], "datatype": "FP32"}}
    models = [runtime(name, tasks=("infer",), inputs=inputs) for name in ("alpha", "beta")]
    server = await serve("kserve", *models)
    token = issuer.token(models=["alpha"])

    def request(model: str) -> Any:
        tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])
        tensor.contents.fp32_contents.append(1.0)
        return oip.ModelInferRequest(model_name=model, inputs=[tensor])

    async def requests() -> Any:
        for model in ("alpha", "beta", "alpha", "gamma"):
            yield request(model)

    call = GRPCInferenceServiceStub(server.channel).ModelStreamInfer
    answers = call(requests(), metadata=[("authorization", f"Bearer {token}")])
    told = [answer.error_message async for answer in answers]
    assert [bool(one) for one in told] == [False, True, False, True]
    assert told[1].replace("beta", "gamma") == told[3]
    assert not models[1].seen


async def code_of(call: Any) -> grpc.StatusCode:
    found: grpc.StatusCode = await call.code()
    return found


async def test_a_stream_ends_with_its_callers_key(serve: Any) -> None:
    labels = {"app": "llm"}
    policy = {
        "namespace": "models",
        "authentication": {"keys": {"apiKey": {"selector": {"matchLabels": labels}}}},
    }
    model = runtime("alpha", tasks=("infer",))
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(1.0)
    request = oip.ModelInferRequest(model_name="alpha", inputs=[tensor])
    metadata = [("authorization", "Bearer k1")]
    async with running(KubeApi()) as kube:
        await kube.put("alice", {"api_key": b"k1"}, labels=labels)
        server = await serve("kserve", model, policy=policy, auth={"kubernetes": {"url": kube.url}})
        stub = GRPCInferenceServiceStub(server.channel)
        stream = stub.ModelStreamInfer(metadata=metadata)
        for _ in range(2):
            await stream.write(request)
            assert not (await stream.read()).error_message
        await kube.delete("alice")
        while await code_of(stub.ModelInfer(request, metadata=metadata)) is grpc.StatusCode.OK:
            pass  # until the deletion is known
        asked = len(model.seen)
        await stream.write(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert len(model.seen) == asked


async def test_two_authorization_headers_are_refused(serve: Any, issuer: Issuer) -> None:
    server = await serve("openai")
    token = f"Bearer {issuer.token(models=['alpha'])}"
    for other in (token, "Bearer x"):
        headers = [("Authorization", token), ("authorization", other)]
        answer = await server.http.get("/v1/models", headers=headers)
        assert answer.status_code == 400
        assert "several authorization headers" in answer.json()["error"]["message"]
    call = InfoServiceStub(server.channel).GetModelsInfo
    caikit = await serve("caikit")
    call = InfoServiceStub(caikit.channel).GetModelsInfo
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(
            ModelInfoRequest(), metadata=[("authorization", token), ("authorization", token)]
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


SHAPES = {
    "openai": ("GET", "/v1/models", lambda body: body["error"]["message"]),
    "caikit": ("GET", "/info/models", lambda body: body["details"]),
    "kserve": ("GET", "/v2", lambda body: body["error"]),
    "tgis": ("GET", "/metrics", lambda body: body["detail"]),
}


@pytest.mark.parametrize("protocol", SHAPES)
@pytest.mark.parametrize("fault", [500, "reset", b"nonsense", "hang"])
async def test_an_authority_that_fails_is_told_in_the_protocols_own_shape(
    serve: Any, issuer: Issuer, protocol: str, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    issuer.fault = fault
    server = await serve(protocol, auth={"budget_s": 0.3})
    token = issuer.token(models=["alpha"])
    method, path, message = SHAPES[protocol]
    answer = await server.http.request(method, path, headers=bearer(token))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "www-authenticate" not in answer.headers
    assert message(answer.json()) == "The authorization service is not available. Retry later."
    for probe in ("/health", "/v2/health/live", "/v2/health/ready"):
        if server.edge._protocols[0].claims(probe):
            assert (await server.http.get(probe)).status_code == 200
    assert token not in caplog.text


async def test_an_authority_that_fails_is_told_over_grpc(serve: Any, issuer: Issuer) -> None:
    issuer.fault = 500
    server = await serve("caikit")
    token = issuer.token(models=["alpha"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await InfoServiceStub(server.channel).GetModelsInfo(
            ModelInfoRequest(), metadata=[("authorization", f"Bearer {token}")]
        )
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert ("retry-after", "1") in [tuple(one) for one in caught.value.trailing_metadata() or ()]


async def test_a_revoked_key_of_an_issuer_ends_at_once_for_new_tokens(
    serve: Any, issuer: Issuer
) -> None:
    server = await serve("openai")
    old = issuer.token(models=["alpha"])
    assert (await server.http.get("/v1/models", headers=bearer(old))).status_code == 200
    issuer.rotate("second", kind="EC")
    new = issuer.token(models=["alpha"])
    assert (await server.http.get("/v1/models", headers=bearer(new))).status_code == 200
    assert (await server.http.get("/v1/models", headers=bearer(old))).status_code == 401


async def test_docs_and_metrics_are_open_only_where_the_settings_say_so(
    serve: Any, issuer: Issuer
) -> None:
    closed = await serve("openai")
    for path in ("/docs", "/openapi.json", "/metrics"):
        assert (await closed.http.get(path)).status_code == 401
    opened = await serve("openai", auth={"public": ["docs", "metrics"]})
    for path in ("/docs", "/openapi.json", "/metrics"):
        assert (await opened.http.get(path)).status_code == 200
    assert (await opened.http.get("/v1/models")).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        *("/health/", "//health", "/health/../v1/models", "/HEALTH", "/health;x", "/health%2f"),
        *("/health/.", "/v1/models/", "/./health"),
    ],
)
async def test_what_only_resembles_a_probe_needs_a_token(serve: Any, path: str) -> None:
    server = await serve("openai")
    base = server.http.base_url

    def raw() -> int:
        connection = http.client.HTTPConnection(base.host, base.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    assert await asyncio.to_thread(raw) == 401


async def test_a_refusal_looks_as_the_policy_says(serve: Any, issuer: Issuer) -> None:
    response = {
        "unauthenticated": {"code": 302, "headers": {"location": {"value": "https://login.example"}},
                            "body": {"value": "<a>login</a>"}},
        "unauthorized": {"code": 404, "message": {"value": "Nothing here."}},
    }  # fmt: skip
    server = await serve("openai", policy=policy_of(issuer, response=response))
    answer = await server.http.get("/v1/models")
    assert (answer.status_code, answer.text) == (302, "<a>login</a>")
    assert answer.headers["location"] == "https://login.example"
    assert "www-authenticate" not in answer.headers
    answer = await server.http.get("/v1/models", headers=bearer(issuer.token(models=[])))
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "Nothing here."


async def test_a_refusal_over_grpc_has_the_policys_message_and_headers(
    serve: Any, issuer: Issuer
) -> None:
    headers = {"x-login": {"value": "https://login"}}
    response = {"unauthenticated": {"message": {"value": "Log in."}, "headers": headers}}
    server = await serve("caikit", policy=policy_of(issuer, response=response))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await InfoServiceStub(server.channel).GetModelsInfo(ModelInfoRequest())
    assert caught.value.details() == "Log in."
    trailing = [tuple(one) for one in caught.value.trailing_metadata() or ()]
    assert ("x-login", "https://login") in trailing


async def test_the_path_of_an_rpc_is_its_whole_name(serve: Any, issuer: Issuer) -> None:
    only = {"predicate": "request.path == '/caikit.runtime.info.InfoService/GetModelsInfo'"}
    policy = policy_of(issuer)
    policy["authorization"]["path"] = {"patternMatching": {"patterns": [only]}}
    server = await serve("caikit", policy=policy)
    metadata = [("authorization", f"Bearer {issuer.token(models=['alpha'])}")]
    stub = InfoServiceStub(server.channel)
    await stub.GetModelsInfo(ModelInfoRequest(), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetRuntimeInfo(ModelInfoRequest(), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_guarded_catalog_answers_nobody_who_was_not_let_in() -> None:
    from rayserve_platform.core.catalog import Catalog

    catalog = Catalog([runtime("alpha")], guarded=True)
    for asking in (catalog.resolve("alpha"), catalog.resolve(None), catalog.served()):
        with pytest.raises(RuntimeError, match="outside of a request"):
            await asking
