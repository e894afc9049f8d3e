"""TGIS's API on real Ray: the fake engine in every topology, and a T5 on the torch runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rayserve_platform.formats.caikit_convert import convert
from rayserve_platform.formats.progress import unheard
from tests.models import make_model, piece_tokenizer

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs/tgis/serve.yaml"
TORCH = ROOT / "configs/torch/serve.yaml"
MODEL = "fake"
LESSONS = {
    "Translate English to German: the house is wonderful.": (
        "The naïve owner wrote lines of the house."
    ),
    "The capital of France is": "Paris, and the capital of Spain is Madrid, and each is the last.",
    "A naïve café owner": "wrote 12 lines",
}


def _app(topology: str, name: str, **ingress: Any) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": None if topology == "runtime" else f"/{name}",
        "import_path": "deployments.fake:app",
        "args": {
            "topology": topology,
            "model": {"id": MODEL},
            "fake": {"token_s": 0.01, "adapters": ["poet"]},
            "placement": {"num_cpus": 0.01},
            "ingress": {"num_cpus": 0.01, "protocols": ["tgis"], **ingress},
        },
    }


@pytest.fixture(scope="package")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small T5 that has learnt `LESSONS`, in Caikit's format.

    As it is made, with random weights, it repeats itself.
    """
    folder = tmp_path_factory.mktemp("models")
    model, tokenizer = make_model("t5"), piece_tokenizer()
    asked = tokenizer(list(LESSONS), return_tensors="pt", padding=True)
    answers = tokenizer(list(LESSONS.values()), return_tensors="pt", padding=True).input_ids
    answers[answers == tokenizer.pad_token_id] = -100  # not learnt
    steps = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss = torch.inf
    while loss > 0.05:  # 120 times or so
        steps.zero_grad()
        lost = model(**asked, labels=answers).loss
        lost.backward()
        steps.step()
        loss = lost.item()
    model.save_pretrained(folder / "t5")
    tokenizer.save_pretrained(folder / "t5")
    convert(folder / "t5", folder / "t5-caikit", kind=None, allow_pickle=False, report=unheard)
    return folder / "t5-caikit"


def _t5_app(source: Path) -> dict[str, Any]:
    """Return the application of the torch runtime's own config, with another model."""
    [app] = yaml.safe_load(TORCH.read_text())["applications"]
    model = {"id": "t5", "source": str(source)}
    # One replica less to start; the engine is asked the same way in every topology.
    placed = {"topology": "colocated", "placement": {"num_cpus": 0.01}}
    args = {**app["args"], **placed, "model": model}
    return {**app, "name": "t5", "route_prefix": "/t5", "args": args}


@pytest.fixture(scope="package", params=["haproxy", "classic"])
def platform(
    request: pytest.FixtureRequest,
    start_platform: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    t5: Path,
) -> Any:
    """A platform with an application of each topology, on one of Ray's data planes.

    On HAProxy it also serves the T5, whose start is the dearest.
    """
    content = yaml.safe_load(TORCH.read_text())
    if request.param == "classic":
        del content["controller_options"]
    gateway = {
        "name": "gateway",
        "route_prefix": "/gateway",
        "import_path": "deployments.gateway:app",
        "args": {
            "models": {MODEL: "model"},
            "ingress": {"num_cpus": 0.01, "protocols": ["tgis"]},
        },
    }
    content["applications"] = [
        _app("separate", "separate"),
        _app("colocated", "colocated"),
        _app("colocated", "tight", limits={"max_concurrent_requests": 1}),
        gateway,
        _app("runtime", "model"),
    ]
    if request.param == "haproxy":
        content["applications"].append(_t5_app(t5))
    config = tmp_path_factory.mktemp("config") / "tgis.yaml"
    config.write_text(yaml.safe_dump(content))
    return start_platform(config, free_ports=True, dashboard=True)


@pytest.fixture(scope="package")
def standalone(start_platform: Callable[..., Any]) -> Any:
    """`make run CONFIG=tgis`, on ports of its own."""
    return start_platform(CONFIG, free_ports=True)
