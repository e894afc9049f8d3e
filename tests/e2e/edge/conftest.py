"""A platform on real Ray that checks tokens, with HAProxy and TLS in front of it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.edge.conftest import Certificates, Front, certificates, fronted, run
from tests.e2e.auth.conftest import make_key
from tests.e2e.caikit.conftest import STANDALONE, _applications

__all__ = ["certificates", "run"]  # fixtures


@pytest.fixture(scope="package")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the platform's keys are."""
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="package")
def token(keys: Path) -> str:
    return make_key(keys)


@pytest.fixture(scope="package", params=["haproxy", "classic"])
def platform(
    request: pytest.FixtureRequest,
    keys: Path,
    token: str,
    start_platform: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A platform of the fake engine on one of Ray's data planes."""
    content = yaml.safe_load(STANDALONE.read_text())
    if request.param == "classic":
        del content["controller_options"]
    content["applications"] = _applications("colocated")
    content["applications"][0]["args"]["ingress"]["auth"] = {"keys": {"file": str(keys)}}
    config = tmp_path_factory.mktemp("config") / "caikit.yaml"
    config.write_text(yaml.safe_dump(content))
    return start_platform(config, free_ports=True)


@pytest.fixture
async def edge(platform: Any, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Front]:
    """HAProxy in front of the platform."""
    http = platform.url.removeprefix("http://")
    async with fronted("haproxy", tmp_path, certificates, http, platform.grpc) as front:
        yield front
