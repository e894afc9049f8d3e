"""The exchanges recorded from Triton, and the models it served (`tests/data/kserve/ORIGIN.md`)."""

import base64
import json
from pathlib import Path
from typing import Any

from rayserve_platform.core.tensors import DTYPES
from rayserve_platform.runtimes.fake import FakeRuntime
from tests.conftest import fake_runtime

DATA = Path(__file__).parents[2] / "data/kserve"


def recorded(transport: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DATA / f"triton_{transport}.json").read_text())
    return found


def content(part: dict[str, str]) -> bytes:
    return base64.b64decode(part["base64"]) if "base64" in part else part["text"].encode()


def model(name: str, **inputs: tuple[str, tuple[int, ...]]) -> FakeRuntime:
    tensors = {key: {"datatype": kind, "shape": shape} for key, (kind, shape) in inputs.items()}
    return fake_runtime(id=name, tasks=("infer",), inputs=tensors)


def models() -> list[FakeRuntime]:
    """What Triton served, on the fake engine."""
    return [
        model("affine", x=("FP32", (-1, 4))),
        model("words", w=("BYTES", (-1, 1))),
        model("two", x=("FP32", (-1, 2)), w=("BYTES", (-1,))),
        *(model(f"one_{kind.lower()}", x=(kind, (-1,))) for kind in DTYPES),
    ]
