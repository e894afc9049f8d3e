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
    done = _dry_run(tmp_path, target)
    assert done.returncode == 0, done.stderr


def _dry_run(tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    # Not those of the make that may have started these tests.
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", "--dry-run", *args, "VENV=.venv"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("config", "stamp", "lock"),
    [
        ("quickstart", None, "quickstart.lock"),
        ("genai", None, "quickstart.lock"),
        ("genai", ".quickstart-made-from-older", "quickstart.lock"),
        ("vllm", None, "dev.lock"),
        ("vllm", ".quickstart-made-from-older", "dev.lock"),
        ("quickstart", ".made-from-older", "dev.lock"),
        ("genai", ".made-from-older", "dev.lock"),
    ],
)
def test_run_installs_what_its_config_needs_and_takes_nothing_away(
    config: str, stamp: str | None, lock: str, tmp_path: Path
) -> None:
    if stamp is not None:
        (tmp_path / ".venv").mkdir()
        (tmp_path / ".venv" / stamp).touch()
    done = _dry_run(tmp_path, "run", f"CONFIG={config}")
    assert re.findall(r"FROM=requirements/(\S+)", done.stdout) == [lock]


def test_what_is_installed_is_compiled(tmp_path: Path) -> None:
    done = _dry_run(tmp_path, "packages", "FOR=.venv/.stamp", "FROM=requirements/quickstart.lock")
    [sync] = [line for line in done.stdout.splitlines() if " pip sync " in line]
    assert " --compile-bytecode " in sync


def test_the_bench_has_targets_to_find() -> None:
    assert {"env", "run", "test", "lint", "bench", "caikit-peer"} <= set(TARGETS)
