import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rayserve_platform.bench.caikit_peer import config, make_model
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.peer import ModelFlags
from rayserve_platform.bench.suite_plan import SuitePlan, choose

# What the runtime does: it binds every address of the machine. The libraries are the real ones.
BINDS = """
import json, concurrent.futures
import grpc, prometheus_client, psutil, uvicorn
from rayserve_platform.bench.caikit_peer import bind_loopback
bind_loopback()
from prometheus_client import start_http_server
start_http_server(0)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
server.add_insecure_port("[::]:0")
server.start()
http = uvicorn.Config(None, host="0.0.0.0", port=0).bind_socket()
bound = [found.laddr.ip for found in psutil.Process().net_connections("tcp")]
print(json.dumps([http.getsockname()[0], *bound]))
"""
# Saves as caikit-nlp's module does: file by file.
MODULE = """
import os, pathlib
class EmbeddingModule:
    @classmethod
    def bootstrap(cls, source):
        assert os.path.isdir(source)
        return cls()
    def save(self, path):
        folder = pathlib.Path(path)
        folder.mkdir(parents=True)
        (folder / "config.yml").write_text("module_id: x")
        if os.environ.get("CUT_SHORT"):
            raise KeyboardInterrupt
        (folder / "artifacts").mkdir()
"""


def test_runtime_listens_on_the_loopback_only():
    done = subprocess.run(
        [sys.executable, "-c", BINDS], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= 3
    assert set(found) <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.fixture
def caikit_nlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the place of caikit-nlp."""
    package = tmp_path / "site/caikit_nlp/modules/text_embedding"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in ("caikit_nlp", "caikit_nlp.modules", "caikit_nlp.modules.text_embedding"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_model_is_made_by_caikit_itself_and_whole_or_not_at_all(
    tmp_path: Path, caikit_nlp: None, monkeypatch: pytest.MonkeyPatch
):
    models = tmp_path / "models"
    monkeypatch.setenv("CUT_SHORT", "1")
    with pytest.raises(KeyboardInterrupt):
        make_model(tmp_path, models / "m")
    assert not models.exists()
    monkeypatch.delenv("CUT_SHORT")
    make_model(tmp_path, models / "m")
    assert {path.name for path in (models / "m").iterdir()} == {"config.yml", "artifacts"}
    assert [path.name for path in models.iterdir()] == ["m"]


def test_config_has_every_listener_on_its_given_port():
    made = config(
        argparse.Namespace(models=Path("models"), http_port=1, grpc_port=2, metrics_port=3)
    )["runtime"]
    assert (made["library"], made["local_models_dir"]) == ("caikit_nlp", "models")
    listeners = {name: made[name]["port"] for name in ("http", "grpc", "metrics")}
    assert listeners == {"http": 1, "grpc": 2, "metrics": 3}
    assert made["grpc"]["unix_socket_path"] == ""


def test_script_shows_its_usage_without_anything_of_ours():
    (peer,) = choose(["caikit"], "caikit")
    values = dict.fromkeys(
        ("port", "grpc_port", "metrics_port", "out", "embedder", "caikit"), "1"
    ) | {"scripts": str(Path(sys.modules[config.__module__].__file__ or "").parent)}
    _, *arguments = peer.argv(values, ModelFlags())
    shown = [sys.executable, *arguments[:2], "--help"]
    done = subprocess.run(shown, capture_output=True, text=True, check=True, timeout=60)
    for option in arguments[2::2]:
        assert option in done.stdout


def test_missing_environment_is_one_line_that_says_how_to_build_it(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    plan = SuitePlan(
        peers=choose(["caikit"], None), out=tmp_path, embedder=tmp_path, caikit=tmp_path / "none"
    )
    with pytest.raises(BenchError, match=r"no environment .*; build it with: make caikit-peer$"):
        plan.check()
