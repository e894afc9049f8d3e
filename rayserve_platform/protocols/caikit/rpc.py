"""Caikit's gRPC API: `NlpService` and `InfoService`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.edge.rpc import STATUS, Call, Stream, Unary
from rayserve_platform.pb import caikit_info_service_pb2, caikit_nlp_service_pb2
from rayserve_platform.pb.caikit_info_pb2 import (
    ModelInfo,
    ModelInfoResponse,
    RuntimeInfoResponse,
)
from rayserve_platform.protocols.caikit import info
from rayserve_platform.protocols.caikit.answer import Asked, answer, find, stream
from rayserve_platform.protocols.caikit.messages import arguments_of, message, piece
from rayserve_platform.protocols.caikit.tasks import STREAMED_TEXT_GENERATION, TASKS, CaikitTask

MODEL_KEY = "mm-model-id"


class CaikitRpc:
    """The protocol as the edge sees it; `max_new_tokens` is the most a request may ask for."""

    name = "caikit"
    exempt = False
    probes: frozenset[str] = frozenset()
    services = (
        caikit_nlp_service_pb2.DESCRIPTOR.services_by_name["NlpService"].full_name,
        caikit_info_service_pb2.DESCRIPTOR.services_by_name["InfoService"].full_name,
    )

    def __init__(self, catalog: Catalog, *, max_new_tokens: int) -> None:
        self._catalog = catalog
        self._max_new_tokens = max_new_tokens
        self.unary: dict[str, Unary] = {
            task.rpc: partial(self._answer, task)
            for task in TASKS
            if task is not STREAMED_TEXT_GENERATION
        }
        self.unary |= {"GetModelsInfo": self._models, "GetRuntimeInfo": self._runtime}
        self.streams: dict[str, Stream] = {
            STREAMED_TEXT_GENERATION.rpc: partial(self._stream, STREAMED_TEXT_GENERATION)
        }

    def error(self, error: PlatformError) -> tuple[grpc.StatusCode, str]:
        """Return an error's status; what a runtime cannot do is the caller's to change."""
        if error.code is Code.UNIMPLEMENTED:
            return grpc.StatusCode.INVALID_ARGUMENT, error.message
        return STATUS[error.code], error.message

    async def _asked(self, task: CaikitTask, call: Call) -> Asked:
        served = await find(self._catalog, call.metadata.get(MODEL_KEY))
        call.record.model = served.card.id
        return Asked(
            task=task,
            served=served,
            arguments=arguments_of(task, call.request),
            max_new_tokens=self._max_new_tokens,
            size_bytes=call.request.ByteSize(),
            request_id=call.request_id,
        )

    async def _answer(self, task: CaikitTask, call: Call) -> Any:
        return message(await answer(await self._asked(task, call)), call.request)

    async def _stream(self, task: CaikitTask, call: Call) -> AsyncGenerator[Any, None]:
        async with aclosing(stream(await self._asked(task, call))) as source:
            async for chunks in source:
                for chunk in chunks:
                    yield piece(chunk)

    async def _models(self, call: Call) -> Any:
        found = await info.models(self._catalog, list(call.request.model_ids))
        answered = ModelInfoResponse()
        for model in found:
            metadata = model.pop("metadata")
            described = ModelInfo(**model)
            described.metadata.update(metadata)
            answered.models.append(described)
        return answered

    async def _runtime(self, call: Call) -> Any:
        return RuntimeInfoResponse(**info.runtime())
