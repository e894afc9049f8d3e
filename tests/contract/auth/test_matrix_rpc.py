"""Every RPC of every protocol, with every kind of token.

The RPCs are taken from what the server's own reflection tells: one without a sample here fails.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2

from tests.contract.auth.conftest import Repository

INFO = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
NLP = "/caikit.runtime.Nlp.NlpService/"
CAIKIT_INFO = "/caikit.runtime.info.InfoService/"
FMAAS = "/fmaas.GenerationService/"
OIP = "/inference.GRPCInferenceService/"
TEXT = {"text": "hi"}
SIMILAR = {"source_sentence": "a", "sentences": ["b"]}
DOCUMENTS = [{"document": {"text": "b"}}]
TENSOR = {"name": "x", "shape": [1], "datatype": "FP32", "contents": {"fp32_contents": [1.0]}}

SAMPLES: dict[str, dict[str, tuple[dict[str, Any], str]]] = {
    "openai": {},
    "caikit": {
        NLP + "EmbeddingTaskPredict": (TEXT, "metadata"),
        NLP + "EmbeddingTasksPredict": ({"texts": ["hi"]}, "metadata"),
        NLP + "SentenceSimilarityTaskPredict": (SIMILAR, "metadata"),
        NLP + "SentenceSimilarityTasksPredict": (
            {"source_sentences": ["a"], "sentences": ["b"]},
            "metadata",
        ),
        NLP + "RerankTaskPredict": ({"query": "a"}, "metadata"),
        NLP + "RerankTasksPredict": ({"queries": ["a"]}, "metadata"),
        NLP + "TokenizationTaskPredict": (TEXT, "metadata"),
        NLP + "TextGenerationTaskPredict": (TEXT, "metadata"),
        NLP + "ServerStreamingTextGenerationTaskPredict": (TEXT, "metadata"),
        CAIKIT_INFO + "GetModelsInfo": ({}, ""),
        CAIKIT_INFO + "GetRuntimeInfo": ({}, ""),
    },
    "tgis": {
        FMAAS + "Generate": ({"requests": [TEXT]}, "model_id"),
        FMAAS + "GenerateStream": ({"request": TEXT}, "model_id"),
        FMAAS + "Tokenize": ({"requests": [TEXT]}, "model_id"),
        FMAAS + "ModelInfo": ({}, "model_id"),
    },
    "kserve": {
        OIP + "ServerLive": ({}, ""),
        OIP + "ServerReady": ({}, ""),
        OIP + "ServerMetadata": ({}, ""),
        OIP + "ModelReady": ({}, "name"),
        OIP + "ModelMetadata": ({}, "name"),
        OIP + "ModelInfer": ({"inputs": [TENSOR]}, "model_name"),
        OIP + "ModelStreamInfer": ({"inputs": [TENSOR]}, "model_name"),
        OIP + "RepositoryIndex": ({}, ""),
        OIP + "RepositoryModelLoad": ({}, "model_name"),
        OIP + "RepositoryModelUnload": ({}, "model_name"),
    },
}
HEALTH = "/grpc.health.v1.Health/"
COMMON: dict[str, tuple[dict[str, Any], str]] = {
    HEALTH + "Check": ({}, ""),
    HEALTH + "Watch": ({}, ""),
    INFO: ({"list_services": ""}, ""),
}
PROBES = {HEALTH + "Check", HEALTH + "Watch", OIP + "ServerLive", OIP + "ServerReady"}
BY_SERVE = {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", HEALTH + "List"}
"""Not the ingress's: Serve answers version 1alpha by itself, and List is not implemented."""
CASES = [
    (protocol, path) for protocol, samples in SAMPLES.items() for path in {**samples, **COMMON}
]


@dataclass(frozen=True)
class Answered:
    """How a call ended, and its first message."""

    code: grpc.StatusCode
    details: str
    trailing: Mapping[str, str]
    message: Any = None


async def ask(
    channel: Any, protocol: str, path: str, model: str, token: str | None, *, app: str = ""
) -> Answered:
    """Call an RPC; `app` is the application of Serve's that is meant, where there are several."""
    content, named = {**SAMPLES[protocol], **COMMON}[path]
    service, _, method = path[1:].partition("/")
    described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    request_type = GetMessageClass(described.input_type)
    metadata = [("application", app)] if app else []
    if named == "metadata":
        metadata.append(("mm-model-id", model))
    elif named:
        content = {**content, named: model}
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    request = request_type(**content)
    kinds = (described.client_streaming, described.server_streaming)
    call_type = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }[kinds]
    call = call_type(
        path,
        request_serializer=request_type.SerializeToString,
        response_deserializer=GetMessageClass(described.output_type).FromString,
    )
    sent: Any = once(request) if described.client_streaming else request
    running = call(sent, metadata=metadata, timeout=20)
    try:
        message = await (running.__aiter__().__anext__() if described.server_streaming else running)
    except grpc.aio.AioRpcError as error:
        trailing = {key: str(value) for key, value in error.trailing_metadata() or ()}
        return Answered(error.code(), error.details() or "", trailing)
    except StopAsyncIteration:
        message = None
    running.cancel()
    return Answered(grpc.StatusCode.OK, "", {}, message)


async def once(request: Any) -> AsyncIterator[Any]:
    yield request


async def reflected(channel: Any, token: str, app: str = "") -> set[str]:
    """Return all RPCs of all services that the server names."""
    call = channel.stream_stream(
        INFO,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    metadata = [("authorization", f"Bearer {token}"), ("application", app)]
    answers = call(once(asked), metadata=metadata[: 2 if app else 1])
    [answer] = [answer async for answer in answers]
    pool = descriptor_pool.Default()
    return {
        f"/{service.name}/{method}"
        for service in answer.list_services_response.service
        for method in pool.FindServiceByName(service.name).methods_by_name
    }


@pytest.mark.parametrize("protocol", SAMPLES)
async def test_every_rpc_that_reflection_names_has_a_sample(
    serve: Any, tokens: Callable[[], dict[str, str]], protocol: str
) -> None:
    server = await serve(protocol)
    found = await reflected(server.channel, tokens()["right"])
    assert found - BY_SERVE == set(SAMPLES[protocol]) | set(COMMON)


@pytest.mark.parametrize(("protocol", "path"), CASES, ids=str)
async def test_an_rpc_is_answered_to_whoever_may(
    serve: Any, tokens: Callable[[], dict[str, str]], protocol: str, path: str
) -> None:
    is_of_repository = "RepositoryModel" in path
    server = await serve(protocol, *([Repository("alpha", "beta")] if is_of_repository else []))
    found, channel = tokens(), server.channel
    if path in PROBES:
        for token in (None, "not-a-token", found["right"]):
            answer = await ask(channel, protocol, path, "alpha", token)
            assert answer.code is grpc.StatusCode.OK
        return
    for kind in (None, "bad", "forged", "expired", "wrong audience"):
        answer = await ask(channel, protocol, path, "alpha", kind and found[kind])
        assert answer.code is grpc.StatusCode.UNAUTHENTICATED, kind
        assert answer.trailing["www-authenticate"] == 'Bearer realm="oidc"'
        assert answer.details in ("Credentials are required.", "The credentials are not valid.")
    answer = await ask(channel, protocol, path, "alpha", found["nothing"])
    assert answer.code is grpc.StatusCode.PERMISSION_DENIED
    right = await ask(channel, protocol, path, "alpha", found["right"])
    assert right.code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    if {**SAMPLES[protocol], **COMMON}[path][1]:
        await assert_alike(server, protocol, path, found["other model"])
    if not is_of_repository:
        assert not server.runtimes["beta"].seen


async def assert_alike(server: Any, protocol: str, path: str, token: str) -> None:
    """A model that is forbidden is answered as one that does not exist."""
    before = len(server.runtimes["alpha"].seen)
    forbidden = await ask(server.channel, protocol, path, "alpha", token)
    unknown = await ask(server.channel, protocol, path, "gamma", token)
    assert forbidden.code is unknown.code
    assert forbidden.details.replace("alpha", "gamma") == unknown.details
    shown = str(forbidden.message).replace("alpha", "gamma")
    assert shown == str(unknown.message)
    assert len(server.runtimes["alpha"].seen) == before
    if forbidden.code is grpc.StatusCode.OK:
        # Whether a model is ready has an answer for every name; a stream tells errors in itself.
        assert "ready: true" not in shown
        assert path.endswith("ModelReady") or "does not exist" in shown
    else:
        assert forbidden.code is grpc.StatusCode.NOT_FOUND
