"""The gRPC API of KServe v2: `inference.GRPCInferenceService`."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import grpc

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError, internal_error
from rayserve_platform.core.tensors import Infer, Inference
from rayserve_platform.edge.rpc import STATUS, Call, Stream, Unary
from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.protocols.kserve import messages, metadata
from rayserve_platform.protocols.kserve.answer import (
    Found,
    find,
    for_pictures,
    parts,
    size_of,
    sized,
)
from rayserve_platform.protocols.kserve.generation import finish
from rayserve_platform.protocols.kserve.messages import is_typed, put, render, to_infer, values
from rayserve_platform.protocols.kserve.texts import infer, text_request, text_tensor

log = logging.getLogger("rayserve.edge")

FINAL = "triton_final_response"
"""The parameter of a streamed answer that tells whether it is its request's last, as in Triton."""
STREAM_PARAMETERS = frozenset({"triton_enable_empty_final_response"})
"""Parameters of a request that are about the stream."""


class KServeRpc:
    """The protocol as the edge sees it.

    Args:
        repository_api: as for `KServeHttp`.
        max_bytes: of a request's raw data.
    """

    name = "kserve"
    exempt = False
    probes = frozenset({"ServerLive", "ServerReady"})
    services = (pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,)

    def __init__(self, catalog: Catalog, *, repository_api: bool, max_bytes: int) -> None:
        self._catalog = catalog
        self._max_bytes = max_bytes
        self._repository = metadata.Repository(catalog, enabled=repository_api)
        self.unary: dict[str, Unary] = {
            "ServerLive": self._live,
            "ServerReady": self._server_ready,
            "ModelReady": self._ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        self.streams: dict[str, Stream] = {"ModelStreamInfer": self._stream}

    def error(self, error: PlatformError) -> tuple[grpc.StatusCode, str]:
        """Return the plain status."""
        return STATUS[error.code], error.message

    async def _live(self, call: Call) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, call: Call) -> Any:
        try:
            await self._catalog.check_health()
        except PlatformError:
            return pb.ServerReadyResponse(ready=False)
        return pb.ServerReadyResponse(ready=True)

    async def _ready(self, call: Call) -> Any:
        """Answer whether a model is ready; one that does not exist is not."""
        name, version = call.request.name, call.request.version
        try:
            ready = bool(name) and await metadata.is_ready(self._catalog, name, version)
        except PlatformError:
            ready = False
        return pb.ModelReadyResponse(ready=ready)

    async def _server(self, call: Call) -> Any:
        found = metadata.server(repository=self._repository.enabled)
        return pb.ServerMetadataResponse(**found)

    async def _model(self, call: Call) -> Any:
        if call.request.name:
            await self._catalog.renew(call.request.name)
        found = await self._find(call, call.request.name, call.request.version)
        return pb.ModelMetadataResponse(**metadata.model(found.served, found.name, found.version))

    async def _find(self, call: Call, name: str, version: str) -> Found:
        if not name:
            raise PlatformError(Code.NOT_FOUND, "The request names no model.", param="model_name")
        return await find(self._catalog, call.record, name, version)

    async def _infer(self, call: Call) -> Any:
        found = await self._find(call, call.request.model_name, call.request.model_version)
        return await self._answer(call, found, call.request)

    async def _answer(self, call: Call, found: Found, request: Any) -> Any:
        asked = await self._decoded(found, request, call.request_id)
        inference = await infer(found.served, asked)
        raw = not is_typed(request)
        return await sized(
            size_of(inference) * (1 if raw else messages.VALUE),
            render,
            inference,
            name=found.name,
            request_id=request.id,
            raw=raw,
        )

    async def _decoded(self, found: Found, request: Any, request_id: str) -> Infer:
        """Return the request without what its parameters say of the stream."""
        asked = await self._inference(found, request, request_id)
        if STREAM_PARAMETERS.isdisjoint(asked.parameters):
            return asked
        kept = {k: v for k, v in asked.parameters.items() if k not in STREAM_PARAMETERS}
        return replace(asked, parameters=kept)

    async def _inference(self, found: Found, request: Any, request_id: str) -> Infer:
        """Decode the inputs; pictures, which take a while, in a thread."""
        card, limit = found.served.card, self._max_bytes
        call = partial(
            to_infer, request, card, found.version, max_bytes=limit, request_id=request_id
        )
        specs = for_pictures(found, request.inputs)
        if specs is not None:
            return await asyncio.to_thread(call, spec=specs)
        return await sized(messages.size_of(request), call)

    async def _stream(self, call: Call) -> AsyncGenerator[Any, None]:
        """Answer requests in their order; an error is told in its answer, and the next one read."""
        async for request in call.request:
            try:
                async with aclosing(self._answers(call, request)) as answers:
                    async for answer in answers:
                        yield pb.ModelStreamInferResponse(infer_response=answer)
            except Exception as error:
                if not isinstance(error, PlatformError):
                    log.exception("request %s failed", call.request_id)
                    error = internal_error()
                call.record.code = f"OK/{STATUS[error.code].name}"
                yield pb.ModelStreamInferResponse(
                    error_message=error.message,
                    infer_response=pb.ModelInferResponse(id=request.id),
                )

    async def _answers(self, call: Call, request: Any) -> AsyncGenerator[Any, None]:
        """Yield one answer for tensors, and of a text every part."""
        found = await self._find(call, request.model_name, request.model_version)
        if not found.generates:
            answer = await self._answer(call, found, request)
            put(answer.parameters[FINAL], value=True)
            yield answer
            return
        asked = await self._decoded(found, request, call.request_id)
        version, generate = text_request(found.served, asked)
        async with aclosing(parts(found, replace(generate, stream=True))) as chunks:
            async for listed in chunks:
                text = "".join(chunk.text for chunk in listed)
                inference = Inference(
                    model=found.name, version=version, outputs=(text_tensor(text),)
                )
                raw = not is_typed(request)
                answer = render(inference, name=found.name, request_id=request.id, raw=raw)
                stop = listed[-1].stop
                if stop is not None:
                    finish(stop)
                put(answer.parameters[FINAL], value=stop is not None)
                yield answer

    async def _index(self, call: Call) -> Any:
        rows = await self._repository.index(ready=call.request.ready)
        listed = [pb.RepositoryIndexResponse.ModelIndex(**row) for row in rows]
        return pb.RepositoryIndexResponse(models=listed)

    async def _load(self, call: Call) -> Any:
        self._repository.check()
        await self._repository.load(_model_name(call.request), values(call.request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, call: Call) -> Any:
        """Unload; `unload_dependents` means nothing here, as no model depends on another."""
        self._repository.check()
        await self._repository.unload(_model_name(call.request))
        return pb.RepositoryModelUnloadResponse()


def _model_name(request: Any) -> str:
    """Return the model that is meant. KServe's own interface has its name in the first field."""
    name: str = request.model_name or request.repository_name
    if not name:
        raise PlatformError(Code.INVALID_ARGUMENT, "'model_name' is required.", param="model_name")
    return name
