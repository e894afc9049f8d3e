"""The LoRA adapters of a running engine: those loaded at start, and those of a directory.

An adapter of the directory is loaded when it is first asked for, through vLLM's own registry of
models: then it is also a model of its own at `/v1/models`, and stays until the replica ends. How
many of them lie in memory at a time is the engine's `max_loras` and `max_cpu_loras`.
"""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

from rayserve_platform.formats.adapter import find_adapter, no_store, not_retrieved

log = logging.getLogger("rayserve.vllm")

RANK = re.compile(r"LoRA rank \d+ is greater than max_lora_rank \d+")
"""What vLLM says of an adapter that is too large: all that a caller may read of its words."""


class Adapters:
    """Finds and loads adapters.

    Args:
        models: vLLM's `OpenAIServingModels`.
        store: the directory of adapters, where there is one.
    """

    def __init__(self, models: Any, store: str | None) -> None:
        self._models = models
        self._store = Path(store).expanduser() if store else None

    async def find(self, adapter: str | None) -> Any:
        """Return vLLM's request for an adapter, loading it first where need be.

        Raises:
            PlatformError: INVALID_ARGUMENT when there is no such adapter, or it does not load.
        """
        if adapter is None:
            return None
        if adapter not in self._models.lora_requests:
            await self._load(adapter)
        return self._models.lora_requests[adapter]

    async def check(self, adapter: str | None) -> None:
        """Raise as `find` does where there is no such adapter, without loading it."""
        if adapter is not None and adapter not in self._models.lora_requests:
            await self._path(adapter)

    async def _path(self, adapter: str) -> Path:
        if self._store is None:
            raise no_store()
        return await asyncio.to_thread(find_adapter, self._store, adapter)

    async def _load(self, adapter: str) -> None:
        path = await self._path(adapter)
        request = LoadLoRAAdapterRequest(lora_name=adapter, lora_path=str(path))
        answer = await self._models.load_lora_adapter(request)
        # Two first requests at a time: vLLM lets one load it and tells the other that it is there.
        if adapter not in self._models.lora_requests:
            log.warning("the adapter %s was not loaded: %s", adapter, answer)
            known = RANK.search(str(answer))
            raise not_retrieved(adapter, known[0] if known else "it does not fit this model")
