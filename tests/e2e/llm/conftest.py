"""The quickstart as the README starts it: the real SmolLM2 on ports 8000 and 9000."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def quickstart(start_platform: Callable[..., Any]) -> Any:
    """`rayserve run configs/quickstart/serve.yaml`, which is what `make run` does."""
    return start_platform(ROOT / "configs/quickstart/serve.yaml")
