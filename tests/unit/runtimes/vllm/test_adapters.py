"""Adapters of a directory, loaded through vLLM's registry when they are first asked for."""

import asyncio
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.vllm.adapters import Adapters


class Registry:
    """Answers as `OpenAIServingModels` does: one load of a name at a time, a second one refused."""

    def __init__(self, failure: str = "") -> None:
        self.lora_requests: dict[str, Any] = {"static": "loaded at start"}
        self.paths: list[str] = []
        self._failure = failure
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def load_lora_adapter(self, request: LoadLoRAAdapterRequest) -> ErrorResponse | str:
        async with self._locks[request.lora_name]:
            if self._failure or request.lora_name in self.lora_requests:
                message = self._failure or "has already been loaded"
                return ErrorResponse(error=ErrorInfo(message=message, type="x", code=500))
            await asyncio.sleep(0)
            self.paths.append(request.lora_path)
            self.lora_requests[request.lora_name] = SimpleNamespace(path=request.lora_path)
            return "Success"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "poet").mkdir()
    (tmp_path / "poet/adapter_config.json").write_text('{"peft_type": "LORA"}')
    return tmp_path


async def refusal(adapters: Adapters, name: str) -> str:
    with pytest.raises(PlatformError) as caught:
        await adapters.find(name)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


async def test_no_adapter_is_none():
    assert await Adapters(Registry(), None).find(None) is None


async def test_an_adapter_loaded_at_start_needs_no_directory():
    assert await Adapters(Registry(), None).find("static") == "loaded at start"
    said = await refusal(Adapters(Registry(), None), "poet")
    assert said == "adapter_id supplied but no adapter store was configured"


async def test_an_adapter_is_loaded_once_however_many_ask_for_it_first(store):
    registry = Registry()
    adapters = Adapters(registry, str(store))
    found = await asyncio.gather(*(adapters.find("poet") for _ in range(5)))
    assert {request.path for request in found} == {str(store / "poet")}
    assert registry.paths == [str(store / "poet")]


async def test_checking_an_adapter_loads_nothing(store):
    registry = Registry()
    adapters = Adapters(registry, str(store))
    await adapters.check("poet")
    await adapters.check("static")
    await adapters.check(None)
    with pytest.raises(PlatformError, match="directory does not exist"):
        await adapters.check("missing")
    assert registry.paths == []


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (
            "Call to add_lora method failed: LoRA rank 64 is greater than max_lora_rank 16.",
            "LoRA rank 64 is greater than max_lora_rank 16",
        ),
        ("Traceback: /mnt/secret/weights is corrupt", "it does not fit this model"),
    ],
)
async def test_an_adapter_that_does_not_load_is_the_callers_mistake_without_vllms_text(
    store, failure, told
):
    said = await refusal(Adapters(Registry(failure), str(store)), "poet")
    assert said == f"can't retrieve adapter with id 'poet': {told}"
