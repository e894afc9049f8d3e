"""Runs TensorFlow and PaddlePaddle in the environments that `make test` builds for them."""

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".frameworks"


def made(framework: str, folder: Path, **environment: str) -> Path:
    """Fill a folder by the framework's script; a test without the environment fails."""
    home = ENVIRONMENTS / framework
    if not any(home.glob(".made-from-*")):
        target = f"{framework}-models"
        pytest.fail(f"there is no environment with {framework}: run make {target}", pytrace=False)
    # Their home is a folder too, since both leave files there when they are imported.
    done = subprocess.run(
        [home / "bin/python", "-I", HERE / f"make_{framework}.py", folder],
        env={**os.environ, "HOME": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return folder
