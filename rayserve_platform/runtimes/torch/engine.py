"""The torch runtime: transformers' models in this process, behind the seam."""

import asyncio
import importlib.metadata
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError, engine_unavailable
from rayserve_platform.core.messages import Chunk, Detokenize, Generate, Tokenize, Tokens
from rayserve_platform.core.metrics import MetricTypes
from rayserve_platform.core.runtime import PartialRuntime
from rayserve_platform.formats.adapter import no_store
from rayserve_platform.formats.source import resolve
from rayserve_platform.formats.weights import size_bytes
from rayserve_platform.settings.torch import TorchApp

if TYPE_CHECKING:
    from rayserve_platform.runtimes.torch.service import Service

log = logging.getLogger("rayserve.torch")


class TorchRuntime(PartialRuntime):
    """See the module. `start` returns when the model is loaded and its decoding loop runs."""

    runtime = "torch"

    def __init__(self, settings: TorchApp, metrics: MetricTypes | None = None) -> None:
        self._settings = settings
        self._created = int(time.time())
        self._loaded: Service | None = None
        self._size_bytes = 0

    async def start(self) -> None:
        """Load the model."""
        began = time.monotonic()
        # The replica's model is a local directory: no look-ups in a hub, which would only time out.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        directory = await asyncio.to_thread(resolve, self._settings.model.source or "")
        self._loaded = await asyncio.to_thread(
            _load, directory, self._settings, asyncio.get_running_loop()
        )
        self._loaded.loop.start()
        self._size_bytes = await asyncio.to_thread(size_bytes, directory)
        log.info("model %s ready in %.1f s", self._settings.model.id, time.monotonic() - began)

    async def stop(self) -> None:
        """End the decoding loop."""
        if self._loaded is not None:
            await asyncio.to_thread(self._loaded.loop.stop)

    @property
    def running(self) -> int:
        """Requests in the decoding loop, waiting ones included."""
        return self._service.loop.running

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the card of the loaded model."""
        model = self._settings.model
        card = ModelCard(
            id=model.id,
            aliases=model.aliases,
            root=model.source or "",
            runtime=self.runtime,
            tasks=frozenset({Task.GENERATE}),
            max_model_len=self._service.max_model_len,
            encoder_decoder=self._service.is_encoder_decoder,
            chat=self._service.texts.has_chat_template,
            created=self._created,
            size_bytes=self._size_bytes,
            engine_version=importlib.metadata.version("transformers"),
        )
        return (card,)

    async def check_health(self) -> None:
        """Raise when the decoding loop has died."""
        if not self._service.loop.is_alive:
            raise engine_unavailable()

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Generate in the decoding loop; leaving the iterator takes the request out of it."""
        _refuse_adapter(request.adapter)
        job = await asyncio.to_thread(self._service.prepare, request)
        self._service.loop.submit(job)
        try:
            async for chunks in job.arrivals.take():
                yield chunks
        finally:
            self._service.loop.cancel(job)

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Tokenize off the event loop."""
        _refuse_adapter(request.adapter)
        tokens = await asyncio.to_thread(
            self._service.texts.tokens, request.prompt, special=request.add_special_tokens
        )
        kept = request.kept(len(tokens.ids))
        return Tokens(ids=tokens.ids[kept], texts=tokens.texts[kept], offsets=tokens.offsets[kept])

    async def detokenize(self, request: Detokenize) -> str:
        """Decode token ids."""
        return await asyncio.to_thread(self._service.texts.detokenize, request.ids)

    @property
    def _service(self) -> "Service":
        if self._loaded is None:
            raise PlatformError(Code.UNAVAILABLE, "The model is not loaded yet. Retry later.")
        return self._loaded


def _refuse_adapter(adapter: str | None) -> None:
    if adapter is not None:
        raise no_store()


def _load(directory: Path, settings: TorchApp, events: asyncio.AbstractEventLoop) -> "Service":
    """Import torch and load the model; blocks."""
    from rayserve_platform.runtimes.torch.loading import load
    from rayserve_platform.runtimes.torch.service import Service

    return Service(load(directory, settings), settings, events)
