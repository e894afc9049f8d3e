"""The runtime over a repository of small models."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.tensors import DATATYPES, Infer, Tensor
from rayserve_platform.runtimes.openvino.engine import OpenVINORuntime
from rayserve_platform.settings.openvino import OpenVINOApp
from tests.unit.runtimes.caches import own_cache
from tests.unit.runtimes.openvino.models import times

ONES = np.ones((1, 4), np.float32)

Start = Callable[..., Awaitable[OpenVINORuntime]]


cache = pytest.fixture(scope="session", autouse=True)(own_cache)


def settings(**args: Any) -> OpenVINOApp:
    return OpenVINOApp.model_validate({"placement": {"num_cpus": 1}, "poll_s": 0, **args})


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a runtime with the model `m` at a place, and settings by name."""
    started: list[OpenVINORuntime] = []

    async def make(
        place: Path | None = None, model: dict[str, Any] | None = None, **args: Any
    ) -> OpenVINORuntime:
        models = [] if place is None else [{"id": "m", "source": str(place), **(model or {})}]
        runtime = OpenVINORuntime(settings(models=models, **args))
        await runtime.start()
        started.append(runtime)
        return runtime

    yield make
    for runtime in started:
        await runtime.stop()


def tensor(name: str, data: Any, datatype: str | None = None) -> Tensor:
    array = np.asarray(data)
    return Tensor(name=name, datatype=datatype or DATATYPES[array.dtype], data=array)


def asked(*, model: str = "m", **inputs: Any) -> Infer:
    return Infer(model=model, inputs=tuple(tensor(n, data) for n, data in inputs.items()))


async def outputs(runtime: OpenVINORuntime, request: Infer) -> dict[str, Any]:
    found = await runtime.infer(request)
    return {tensor.name: tensor.data for tensor in found.outputs}


async def refusal(asking: Awaitable[object]) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await asking
    return caught.value


async def look(runtime: OpenVINORuntime, times: int = 2) -> None:
    """Let the runtime look for changes: at the second look, files have settled."""
    for _ in range(times):
        await runtime._look_once()
        for served in list(runtime._models.values()):
            await asyncio.gather(*served._draining)


async def states(runtime: OpenVINORuntime, model: str = "m") -> dict[str, str]:
    cards = {card.id: card for card in await runtime.describe()}
    return {version.version: str(version.state) for version in cards[model].versions}


async def factor(runtime: OpenVINORuntime, version: str | None = None, model: str = "m") -> float:
    found = await runtime.infer(Infer(model=model, version=version, inputs=(tensor("x", ONES),)))
    (answer,) = found.outputs
    return float(answer.data[0, 0])


def put(base: Path, number: int, factor: float | None = None) -> Path:
    return times(base / str(number), factor or number)


def spoil(base: Path, number: int) -> Path:
    folder = base / str(number)
    folder.mkdir(parents=True)
    (folder / "model.xml").write_bytes(b"<net")
    (folder / "model.bin").write_bytes(b"")
    return folder
