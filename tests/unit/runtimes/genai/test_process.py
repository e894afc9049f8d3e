"""The engine's process: its birth, its death, and what it does without."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Generate, Stopping
from rayserve_platform.runtimes.genai.engine import GenAIRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.genai import GenAIApp, GenAIEngine
from tests.unit.runtimes.genai.conftest import make_runtime

pytestmark = pytest.mark.llm


async def test_a_dead_engine_is_unavailable_and_unwell():
    runtime = make_runtime()
    await runtime.start()
    process = runtime._process._process
    assert process is not None
    try:
        long = Stopping(max_new_tokens=1500, ignore_eos=True)
        stream = runtime.generate(Generate(model="m", prompt="Hi", stream=True, stopping=long))
        await anext(stream)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(PlatformError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(PlatformError):
            await runtime.check_health()
        with pytest.raises(PlatformError):
            await anext(runtime.generate(Generate(model="m", prompt="Hi")))
    finally:
        await runtime.stop()


async def test_a_model_that_is_none_says_so_at_the_start(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\0" * 16)
    runtime = GenAIRuntime(GenAIApp(model=Model(id="m", source=str(broken))))
    with pytest.raises(PlatformError) as caught:
        await runtime.start()
    await runtime.stop()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(tmp_path) not in caught.value.message


async def test_a_length_beyond_the_models_is_refused():
    runtime = make_runtime()
    engine = GenAIEngine(max_model_len=10**6)
    runtime = GenAIRuntime(GenAIApp(model=runtime._settings.model, engine=engine))
    with pytest.raises(PlatformError, match="1000000 is more than the 8192 positions"):
        await runtime.start()
    await runtime.stop()


def test_the_engine_loads_without_torch_transformers_and_vllm():
    code = (
        "import sys, rayserve_platform.runtimes.genai.engine, "
        "rayserve_platform.runtimes.genai.worker\n"
        "print([name for name in ('torch', 'transformers', 'vllm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.asyncio(loop_scope="session")
async def test_the_running_process_has_no_torch_mapped(served):
    maps = await asyncio.to_thread(_maps, served.pid)
    assert "libopenvino_genai" in maps
    assert "torch" not in maps


def _maps(pid: int) -> str:
    with open(f"/proc/{pid}/maps") as file:  # noqa: PTH123  # no path of ours
        return file.read()
