"""The exchanges recorded from Triton, and the models it served (`tests/data/kserve/ORIGIN.md`)."""

import base64
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Chunk, Generate
from rayserve_platform.core.runtime import PartialRuntime
from rayserve_platform.core.tensors import DTYPES, Infer, Inference, Value
from rayserve_platform.runtimes.fake import FakeRuntime
from tests.conftest import fake_runtime

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests/data/kserve"
TABLE = ROOT / "configs/openvino/README.md"
COLUMNS = ("transport", "Triton", "here", "why", "cases")


def recorded(transport: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DATA / f"triton_{transport}.json").read_text())
    return found


def differences(whose: str = "here") -> dict[str, dict[str, str]]:
    """Return what the table of deliberate differences says that a case is answered with.

    By transport (REST or gRPC) and name; `whose` is the column: here or Triton.
    """
    found: dict[str, dict[str, str]] = {"REST": {}, "gRPC": {}}
    for line in TABLE.read_text().splitlines():
        cells = dict(zip(COLUMNS, map(str.strip, line.strip("|").split("|")), strict=False))
        if cells["transport"] in found:
            answered = re.match(r"`(\w+)`", cells[whose])
            assert answered is not None, line
            for name in re.findall(r"`([^`]+)`", cells["cases"]):
                found[cells["transport"]][name] = answered[1]
    assert all(found.values())
    return found


def content(part: dict[str, str]) -> bytes:
    return base64.b64decode(part["base64"]) if "base64" in part else part["text"].encode()


def model(name: str, **inputs: tuple[str, tuple[int, ...]]) -> FakeRuntime:
    tensors = {key: {"datatype": kind, "shape": shape} for key, (kind, shape) in inputs.items()}
    return fake_runtime(id=name, tasks=("infer",), inputs=tensors)


class Several(PartialRuntime):
    """One engine with the models of several fake ones."""

    runtime = "fake"

    def __init__(self, *runtimes: FakeRuntime) -> None:
        self._runtimes = runtimes

    async def describe(self) -> tuple[ModelCard, ...]:
        return tuple([card for found in self._runtimes for card in await found.describe()])

    async def check_health(self) -> None:
        for found in self._runtimes:
            await found.check_health()

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        async with aclosing((await self._find(request.model)).generate(request)) as made:
            async for chunks in made:
                yield chunks

    async def infer(self, request: Infer) -> Inference:
        return await (await self._find(request.model)).infer(request)

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        await (await self._find(name)).load_model(name, parameters)

    async def unload_model(self, name: str) -> None:
        await (await self._find(name)).unload_model(name)

    async def _find(self, name: str) -> FakeRuntime:
        for found in self._runtimes:
            if name == (await found.describe())[0].id:
                return found
        raise PlatformError(Code.NOT_FOUND, f"The repository has no model '{name}'.")


def models() -> list[FakeRuntime]:
    """What Triton served, on the fake engine."""
    return [
        model("affine", x=("FP32", (-1, 4))),
        model("words", w=("BYTES", (-1, 1))),
        model("two", x=("FP32", (-1, 2)), w=("BYTES", (-1,))),
        *(model(f"one_{kind.lower()}", x=(kind, (-1,))) for kind in DTYPES),
    ]
