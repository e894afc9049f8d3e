"""The targets that `make help` lists, as far as a dry run goes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_how_to_make_everything_that_a_target_needs(target: str, tmp_path: Path) -> None:
    """Seen from nothing, with neither an environment nor a peer of the bench."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    # Not those of the make that may have started these tests.
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        ["make", "--dry-run", target, "VENV=.venv"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_bench_has_targets_to_find() -> None:
    assert {"env", "run", "test", "lint", "bench", "caikit-peer"} <= set(TARGETS)
