"""Placement of engines, scheduled by a real Ray on logical GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).with_name("schedule.py")


CASES: dict[str, dict[str, Any]] = {
    "tensor_parallel": {
        "engine": {"tensor_parallel_size": 4},
        "placement": {"num_gpus": 1, "num_cpus": 2, "accelerator_type": "H100"},
    },
    "shared": {"placement": {"num_gpus": 0.5, "num_cpus": 1}},
    "one_process_group": {
        "engine": {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"},
        "placement": {"num_gpus": 1, "num_cpus": 1},
    },
}
REPLICAS = {"shared": 2}


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What Ray did with every case, on one cluster."""
    folder = tmp_path_factory.mktemp("placement")
    cases = {
        name: {
            "args": {"model": {"id": "m", "source": "/m"}, **args},
            "replicas": REPLICAS.get(name, 1),
        }
        for name, args in CASES.items()
    }
    (folder / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder / "cases.json"), str(folder / "found.json")],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/tmp"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


def test_tensor_parallel_workers_get_a_bundle_each(scheduled: Any) -> None:
    found = scheduled["tensor_parallel"]
    [given] = found["given"]
    assert given["strategy"] == "PACK"
    assert [bundle["GPU"] for bundle in given["bundles"]] == [1.0, 1.0, 1.0, 1.0]
    assert given["bundles"][0]["CPU"] == 2.0
    assert all("accelerator_type:H100" in bundle for bundle in given["bundles"])
    # The group holds all four; the replica itself none, so that the engine's workers find them.
    assert found["free_gpus"] == 0.0
    assert given["gpu_ids"] == []


def test_two_replicas_share_a_gpu(scheduled: Any) -> None:
    found = scheduled["shared"]
    assert found["free_gpus"] == 3.0
    assert {tuple(given["gpu_ids"]) for given in found["given"]} == {("0",)}


def test_workers_in_one_process_group_belong_to_the_replica(scheduled: Any) -> None:
    found = scheduled["one_process_group"]
    [given] = found["given"]
    assert len(given["gpu_ids"]) == 2
    assert given["bundles"] is None
    assert found["free_gpus"] == 2.0
