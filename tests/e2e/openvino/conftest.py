"""`make run CONFIG=openvino`, with a small model of several versions beside the real one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.runtimes.openvino.models import times

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="package")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of the model `times`: version n multiplies by n; the first is there."""
    folder = tmp_path_factory.mktemp("times")
    times(folder / "1")
    return folder


@pytest.fixture(scope="package")
def platform(
    start_platform: Callable[..., Any], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The platform, on ports of its own."""
    content = yaml.safe_load((ROOT / "configs/openvino/serve.yaml").read_text())
    args = content["applications"][0]["args"]
    args["models"].append({"id": "times", "source": str(repository)})
    args["ingress"]["kserve"] = {"repository_api": True}
    config = tmp_path_factory.mktemp("config") / "serve.yaml"
    config.write_text(yaml.safe_dump(content))
    return start_platform(config, free_ports=True)
