"""Deploys a probe with the Serve options of vLLM applications, on logical GPUs.

Usage: schedule.py CASES_JSON_FILE RESULTS_JSON_FILE
"""

import json
import sys
from pathlib import Path

import ray
from ray import serve
from ray.util import get_current_placement_group, placement_group_table

from rayserve_platform.serving.build import host_options
from rayserve_platform.settings.vllm import VLLMApp


class Probe:
    """Says what its replica was given."""

    def given(self) -> dict[str, object]:
        """Return this replica's GPUs and placement group."""
        group = get_current_placement_group()
        return {
            "gpu_ids": [str(gpu) for gpu in ray.get_gpu_ids()],
            "bundles": list(placement_group_table(group)["bundles"].values()) if group else None,
            "strategy": placement_group_table(group)["strategy"] if group else None,
        }


def schedule(args: dict[str, object], replicas: int) -> dict[str, object]:
    """Deploy a probe with the options of these args, and take it down again."""
    options = {**host_options(VLLMApp.model_validate(args)), "num_replicas": replicas}
    probe = serve.deployment(Probe, name="Runtime", **options)
    handle = serve.run(probe.bind(), name="probe", route_prefix=None)
    # Ray lists a bundle's resources in any order.
    answers = {json.dumps(handle.given.remote().result(), sort_keys=True) for _ in range(20)}
    free = ray.available_resources().get("GPU", 0.0)
    serve.delete("probe")
    return {"given": [json.loads(answer) for answer in answers], "free_gpus": free}


def main() -> None:
    """Schedule every case on one cluster and write what was seen."""
    cases = json.loads(Path(sys.argv[1]).read_text())
    ray.init(
        address="local",
        num_cpus=16,
        num_gpus=4,
        resources={"accelerator_type:H100": 1},
        include_dashboard=False,
        object_store_memory=80_000_000,
        log_to_driver=False,
    )
    found = {name: schedule(**case) for name, case in cases.items()}
    Path(sys.argv[2]).write_text(json.dumps(found))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
