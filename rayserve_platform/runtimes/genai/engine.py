"""The GenAI runtime: language models on CPUs by OpenVINO GenAI, behind the seam."""

import asyncio
import contextlib
import importlib.metadata
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError, overloaded
from rayserve_platform.core.messages import Chunk, Detokenize, Generate, Tokenize, Tokens
from rayserve_platform.core.metrics import MetricTypes
from rayserve_platform.core.runtime import PartialRuntime
from rayserve_platform.formats.adapter import no_store
from rayserve_platform.formats.llm import LLMFiles, locate_llm
from rayserve_platform.runtimes.genai.process import EngineProcess
from rayserve_platform.runtimes.genai.wire import Decode, Facts
from rayserve_platform.settings.genai import GenAIApp

log = logging.getLogger("rayserve.genai")


class GenAIRuntime(PartialRuntime):
    """See the module. `start` returns when the model is loaded."""

    runtime = "genai"

    def __init__(self, settings: GenAIApp, metrics: MetricTypes | None = None) -> None:
        self._settings = settings
        self._created = int(time.time())
        self._process = EngineProcess()
        self._facts: Facts | None = None
        self._files: LLMFiles | None = None
        self._answers = 0
        self._texts = 0

    async def start(self) -> None:
        """Load the model in a process of its own."""
        began = time.monotonic()
        self._files = await asyncio.to_thread(locate_llm, self._settings.model.source or "")
        self._facts = await self._process.start(self._settings, self._files.path)
        log.info("model %s ready in %.1f s", self._settings.model.id, time.monotonic() - began)

    async def stop(self) -> None:
        """End the process."""
        await self._process.stop()

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the card of the loaded model."""
        if self._facts is None or self._files is None:
            raise PlatformError(Code.UNAVAILABLE, "The model is not loaded yet. Retry later.")
        model = self._settings.model
        card = ModelCard(
            id=model.id,
            aliases=model.aliases,
            root=model.source or "",
            runtime=self.runtime,
            tasks=frozenset({Task.GENERATE}),
            max_model_len=self._facts.max_model_len,
            chat=self._facts.chat,
            created=self._created,
            size_bytes=self._files.size_bytes,
            engine_version=importlib.metadata.version("openvino-genai"),
        )
        return (card,)

    async def check_health(self) -> None:
        """Raise when the process has ended or hangs."""
        self._process.check()

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Generate in the engine's process; leaving the iterator takes the request out of it."""
        _refuse_adapter(request.adapter)
        engine = self._settings.engine
        if not 1 <= request.n <= engine.max_batch_size:
            message = f"'n' must be from 1 to {engine.max_batch_size}, got {request.n}."
            raise PlatformError(Code.INVALID_ARGUMENT, message, param="n")
        if self._answers + request.n > engine.max_batch_size + engine.max_waiting:
            raise overloaded()
        self._answers += request.n
        try:
            async with contextlib.aclosing(self._process.call(request)) as answers:
                async for pieces in answers:
                    yield [chunk for chunks in pieces for chunk in chunks]
        finally:
            self._answers -= request.n

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Tokenize in the engine's process."""
        _refuse_adapter(request.adapter)
        tokens: Tokens = await self._ask(request)
        return tokens

    async def detokenize(self, request: Detokenize) -> str:
        """Decode token ids."""
        text: str = await self._ask(Decode(request.ids))
        return text

    async def _ask(self, what: Tokenize | Decode) -> Any:
        if self._texts >= self._settings.engine.max_waiting:
            raise overloaded()
        self._texts += 1
        try:
            return await self._process.ask(what)
        finally:
            self._texts -= 1


def _refuse_adapter(adapter: str | None) -> None:
    if adapter is not None:
        raise no_store()
