"""`make run CONFIG=caikit-tgis`, with the real SmolLM2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def platform(start_platform: Callable[..., Any]) -> Any:
    """The platform, on ports of its own."""
    return start_platform(ROOT / "configs/caikit-tgis/serve.yaml", free_ports=True)
