"""The vLLM runtime: vLLM's asynchronous engine in this process, behind the seam."""

import argparse
import asyncio
import importlib
import importlib.metadata
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from rayserve_platform.core.cards import Adapter, ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError, engine_unavailable
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.metrics import MetricTypes
from rayserve_platform.core.runtime import PartialRuntime, Receive, Scope, Send
from rayserve_platform.formats.source import resolve
from rayserve_platform.runtimes.vllm.devices import thread_environment
from rayserve_platform.settings.vllm import VLLMApp

log = logging.getLogger("rayserve.vllm")

TASKS = {"generate": Task.GENERATE, "embed": Task.EMBED, "classify": Task.CLASSIFY}


class VLLMRuntime(PartialRuntime):
    """See the module. `start` returns when the engine and vLLM's own OpenAI app are ready."""

    runtime = "vLLM"

    def __init__(self, settings: VLLMApp, metrics: MetricTypes | None = None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._created = int(time.time())
        self._engine: Any = None
        self._server: Any = None
        self._verbs: Any = None
        self._tasks: tuple[str, ...] = ()
        self._version = ""

    async def start(self) -> None:
        """Load the model.

        While the engine's own processes import and load, this one imports the OpenAI server: the
        two take about as long and need different processes.
        """
        began = time.monotonic()
        # The replica's model is a local directory: no look-ups in a hub, which would only time out.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        # What an allowed host redirects to need not be one.
        os.environ.setdefault("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0")
        source = self._settings.model.source or ""
        model_dir = await asyncio.to_thread(resolve, source)
        if not self._settings.placement.num_gpus:
            os.environ.update(thread_environment(self._settings.placement, os.environ))
        args = await asyncio.to_thread(_arguments, self._settings, model_dir)
        importing = asyncio.create_task(asyncio.to_thread(_import_server))
        self._engine = await asyncio.to_thread(_load, args, self._metrics)
        try:
            await importing
            await self._open(args)
        except BaseException:
            # Serve tries again in another process: the memory must be free by then.
            await self.stop()
            raise
        log.info("model %s ready in %.1f s", self._settings.model.id, time.monotonic() - began)

    async def _open(self, args: argparse.Namespace) -> None:
        """Make what answers requests around the loaded engine."""
        from rayserve_platform.runtimes.vllm.adapters import Adapters
        from rayserve_platform.runtimes.vllm.server import NativeServer
        from rayserve_platform.runtimes.vllm.verbs import Verbs

        self._tasks = await self._engine.get_supported_tasks()
        self._version = await asyncio.to_thread(_version)
        self._server = await NativeServer.create(self._engine, args, self._tasks)
        models = self._server.state.openai_serving_models
        self._verbs = Verbs(self._engine, args, Adapters(models, self._settings.adapters_dir))

    async def stop(self) -> None:
        """End the engine's processes."""
        try:
            if self._server is not None:
                await self._server.close()
        finally:
            if self._engine is not None:
                await asyncio.to_thread(self._engine.shutdown, timeout=5)

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the card of the loaded model, with the adapters that are loaded now."""
        config = self._engine.model_config
        models = self._server.state.openai_serving_models
        adapters = tuple(
            Adapter(name=name, root=request.lora_path)
            for name, request in models.lora_requests.items()
        )
        tokenizer = self._engine.renderer.tokenizer
        template = self._settings.chat_template or getattr(tokenizer, "chat_template", None)
        card = ModelCard(
            id=self._settings.model.id,
            aliases=self._settings.model.aliases,
            root=self._settings.model.source or "",
            runtime=self.runtime,
            tasks=frozenset(TASKS[task] for task in self._tasks if task in TASKS),
            max_model_len=config.max_model_len,
            adapters=adapters,
            chat=template is not None,
            created=self._created,
            native=self._server.routes,
            engine_version=self._version,
        )
        return (card,)

    async def check_health(self) -> None:
        """Raise when the engine's process has died."""
        if self._engine.errored:
            raise engine_unavailable()

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with vLLM's own OpenAI application."""
        await self._server.answer(scope, receive, send)

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Generate in the engine; leaving the iterator aborts the request there."""
        self._need(Task.GENERATE, "generate text")
        chunks: AsyncGenerator[Sequence[Chunk], None] = self._verbs.generate(request)
        return chunks

    async def embed(self, request: Embed) -> Embeddings:
        """Embed each input; vLLM batches them with whatever else is running."""
        self._need(Task.EMBED, "compute embeddings")
        answer: Embeddings = await self._verbs.embed(request)
        return answer

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Tokenize with the engine's own tokenizer."""
        answer: Tokens = await self._verbs.tokenize(request)
        return answer

    async def detokenize(self, request: Detokenize) -> str:
        """Decode token ids."""
        answer: str = await self._verbs.detokenize(request)
        return answer

    def _need(self, task: Task, verb: str) -> None:
        if not any(TASKS.get(own) is task for own in self._tasks):
            raise PlatformError(
                Code.UNIMPLEMENTED, f"The model '{self._settings.model.id}' cannot {verb}."
            )


def _version() -> str:
    """Return vLLM's version.

    CPU and CUDA builds are packages of different names, and finding out which one is here reads the
    whole environment: done once.
    """
    name = importlib.metadata.packages_distributions()["vllm"][0]
    return importlib.metadata.version(name)


def _arguments(settings: VLLMApp, model_dir: Any) -> argparse.Namespace:
    """Import vLLM and let its parser read our settings."""
    arguments = importlib.import_module("rayserve_platform.runtimes.vllm.arguments")
    platforms = importlib.import_module("vllm.platforms")
    cpu = platforms.current_platform.is_cpu()
    values = arguments.server_values(settings, model_dir, cpu=cpu)
    log.info("vLLM arguments: %s", {k: v for k, v in values.items() if k != "hf_token"})
    args: argparse.Namespace = arguments.parse(values)
    return args


def _load(args: argparse.Namespace, metrics: MetricTypes | None) -> Any:
    """Start the engine; blocks until its processes have loaded the model."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    from rayserve_platform.runtimes.vllm.counting import CountingLLM
    from rayserve_platform.runtimes.vllm.logits import processors_for
    from rayserve_platform.runtimes.vllm.stats import stat_loggers

    engine_args = AsyncEngineArgs.from_cli_args(args)
    config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    # Only now is it known which of vLLM's model runners they have to fit.
    own = processors_for(config)
    if own:
        config.model_config.logits_processors = [
            *(config.model_config.logits_processors or ()),
            *own,
        ]
    return CountingLLM.from_vllm_config(
        vllm_config=config,
        usage_context=UsageContext.OPENAI_API_SERVER,
        stat_loggers=stat_loggers(metrics),
        disable_log_stats=engine_args.disable_log_stats,
        enable_log_requests=engine_args.enable_log_requests,
    )


def _import_server() -> None:
    """Import what `NativeServer` needs, generation routes included."""
    for module in (
        "rayserve_platform.runtimes.vllm.server",
        "rayserve_platform.runtimes.vllm.verbs",
        "vllm.entrypoints.generate.api_router",
        "vllm.entrypoints.scale_out.factories",
        "vllm.entrypoints.pooling.factories",
    ):
        importlib.import_module(module)
