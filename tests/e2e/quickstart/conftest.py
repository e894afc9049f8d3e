"""`make run`, with the real SmolLM2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def quickstart(start_platform: Callable[..., Any]) -> Any:
    """`rayserve run configs/quickstart/serve.yaml`, which is what `make run` does.

    On ports of its own, so that a quickstart that runs already is not in the way.
    """
    return start_platform(ROOT / "configs/quickstart/serve.yaml", free_ports=True)
