"""Engines. Each module drives one; nothing heavy loads before `load` is called."""

import importlib
from typing import Any, Protocol

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.metrics import MetricTypes
from rayserve_platform.core.runtime import Runtime

ENGINES = {
    "vllm": "rayserve_platform.runtimes.vllm.engine:VLLMRuntime",
    "embedding": "rayserve_platform.runtimes.embedding.engine:EmbeddingRuntime",
    "torch": "rayserve_platform.runtimes.torch.engine:TorchRuntime",
    "genai": "rayserve_platform.runtimes.genai.engine:GenAIRuntime",
    "openvino": "rayserve_platform.runtimes.openvino.engine:OpenVINORuntime",
    "fake": "rayserve_platform.runtimes.fake:FakeRuntime",
}
"""Short names; a custom runtime is named by its own `module:Class`."""


class Engine(Runtime, Protocol):
    """A runtime with a life of its own: made with its settings, then started once."""

    async def start(self) -> None:
        """Load the model; return when requests can be served."""
        ...

    async def stop(self) -> None:
        """Release everything; called once, after the last request."""
        ...


def load(name: str, settings: Any, metrics: MetricTypes | None) -> Engine:
    """Make the engine called `name` (a key of `ENGINES` or `module:Class`).

    Raises:
        PlatformError: INVALID_ARGUMENT when there is no such engine or its package is missing.
    """
    path = ENGINES.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"unknown runtime '{name}'; known: {', '.join(ENGINES)}, or module:Class",
        )
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise PlatformError(
            Code.INVALID_ARGUMENT, f"runtime '{name}' cannot be loaded: {error}"
        ) from error
    engine: Engine = made(settings, metrics)
    return engine
