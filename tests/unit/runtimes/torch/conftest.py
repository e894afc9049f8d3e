"""Tiny models with random weights, and the torch runtime over them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rayserve_platform.runtimes.torch.engine import TorchRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.torch import TorchApp, TorchEngine
from tests.models import Reference, save_model
from tests.unit.runtimes.asked import Asked

Directory = Callable[[str], Path]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    """Make the directory of a kind of model, once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            path = tmp_path_factory.mktemp("models") / kind
            save_model(kind, path)
            made[kind] = path
        return made[kind]

    return get


class Served(Asked):
    """A runtime that has started, and what tests ask of it."""

    def __init__(self, runtime: TorchRuntime) -> None:
        super().__init__(runtime)
        self.runtime = runtime

    @property
    def company(self) -> str:
        """Which answers share a batch."""
        return self.runtime._service.company.value

    async def until(self, running: int) -> None:
        """Wait until so many requests are in the loop; the test's own time limit bounds it."""
        while self.runtime.running != running:  # noqa: ASYNC110  # another thread counts
            await asyncio.sleep(0.001)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a runtime over a directory; all of them are stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(path: Path | str, *, name: str = "m", **engine: Any) -> Served:
            model = Model(id=name, source=str(path))
            runtime = TorchRuntime(TorchApp(model=model, engine=TorchEngine(**engine)))
            stack.push_async_callback(runtime.stop)
            await runtime.start()
            return Served(runtime)

        yield start


@pytest.fixture(scope="session")
def load_reference() -> Callable[[Path], Reference]:
    """Load transformers' own model of any directory."""
    return Reference


@pytest.fixture(scope="session")
def reference(directory: Directory) -> Callable[[str], Reference]:
    """Load transformers' own model of a kind, once."""
    loaded: dict[str, Reference] = {}

    def get(kind: str) -> Reference:
        if kind not in loaded:
            loaded[kind] = Reference(directory(kind))
        return loaded[kind]

    return get
