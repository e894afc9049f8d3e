"""One request of every protocol that asks an engine, over HTTP and gRPC."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from rayserve_platform.pb import caikit_nlp_service_pb2 as caikit
from rayserve_platform.pb import generation_pb2 as tgis
from rayserve_platform.pb import kserve_inference_pb2 as kserve
from tests.contract.quotas.conftest import Limited

TENSOR = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
CHAT = {"model": "alpha", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
HTTP: dict[str, tuple[str, dict[str, Any]]] = {
    "openai chat": ("/v1/chat/completions", CHAT),
    "openai chat streamed": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "openai completion": (
        "/v1/completions",
        {"model": "alpha", "prompt": ["hi", "there"], "max_tokens": 5},
    ),
    "openai embeddings": ("/v1/embeddings", {"model": "alpha", "input": ["hi", "there"]}),
    "openai tokenize": ("/tokenize", {"model": "alpha", "prompt": "hi"}),
    "caikit text": ("/api/v1/task/text-generation", {"model_id": "alpha", "inputs": "hi"}),
    "caikit text streamed": (
        "/api/v1/task/server-streaming-text-generation",
        {"model_id": "alpha", "inputs": "hi"},
    ),
    "caikit embedding": ("/api/v1/task/embedding", {"model_id": "alpha", "inputs": "hi"}),
    "kserve tensors": ("/v2/models/beta/infer", {"inputs": [TENSOR]}),
    "kserve generate": ("/v2/models/alpha/generate", {"text_input": "hi"}),
    "kserve generate_stream": ("/v2/models/alpha/generate_stream", {"text_input": "hi"}),
}
NLP = "/caikit.runtime.Nlp.NlpService/"
FMAAS = "/fmaas.GenerationService/"
OIP = "/inference.GRPCInferenceService/"


def _text() -> Any:
    return caikit.TextGenerationTaskRequest(text="hi")


def _tensors() -> Any:
    tensor = kserve.ModelInferRequest.InferInputTensor(name="x", shape=[1], datatype="FP32")
    tensor.contents.fp32_contents.append(1.0)
    return kserve.ModelInferRequest(model_name="beta", inputs=[tensor])


RPC: dict[str, tuple[str, Callable[[], Any], bool]] = {
    "caikit text": (NLP + "TextGenerationTaskPredict", _text, False),
    "caikit text streamed": (
        NLP + "ServerStreamingTextGenerationTaskPredict",
        lambda: caikit.ServerStreamingTextGenerationTaskRequest(text="hi"),
        True,
    ),
    "caikit embedding": (
        NLP + "EmbeddingTaskPredict",
        lambda: caikit.EmbeddingTaskRequest(text="hi"),
        False,
    ),
    "tgis batch": (
        FMAAS + "Generate",
        lambda: tgis.BatchedGenerationRequest(
            model_id="alpha", requests=[tgis.GenerationRequest(text=t) for t in ("hi", "there")]
        ),
        False,
    ),
    "tgis streamed": (
        FMAAS + "GenerateStream",
        lambda: tgis.SingleGenerationRequest(
            model_id="alpha", request=tgis.GenerationRequest(text="hi")
        ),
        True,
    ),
    "kserve tensors": (OIP + "ModelInfer", _tensors, False),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a request, in words that both transports share."""

    status: str
    """`ok`, or the status: `429`, `RESOURCE_EXHAUSTED`."""
    headers: dict[str, str]
    text: str


async def over_http(server: Limited, name: str, who: str = "alice") -> Outcome:
    """Send one of `HTTP`."""
    path, body = HTTP[name]
    answer = await server.http.post(path, json=body, headers=server.as_(who))
    status = "ok" if answer.status_code == 200 else str(answer.status_code)
    return Outcome(status=status, headers=dict(answer.headers), text=answer.text)


async def over_rpc(server: Limited, name: str, who: str = "alice") -> Outcome:
    """Send one of `RPC`."""
    path, make, streams = RPC[name]
    metadata = (*server.as_(who).items(), ("mm-model-id", "alpha"))
    kind = server.channel.unary_stream if streams else server.channel.unary_unary
    call: Any = kind(path, request_serializer=type(make()).SerializeToString)(
        make(), metadata=metadata
    )
    try:
        messages = [message async for message in call] if streams else [await call]
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        return Outcome(status=error.code().name, headers=trailing, text=str(error.details()))
    trailing = dict(await call.trailing_metadata())
    return Outcome(status="ok", headers=trailing, text=repr(messages))


CASES = [("http", name) for name in HTTP] + [("rpc", name) for name in RPC]


async def send(server: Limited, transport: str, name: str, who: str = "alice") -> Outcome:
    """Send one of `CASES`."""
    return await (over_http if transport == "http" else over_rpc)(server, name, who)
