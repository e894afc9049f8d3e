import pytest

from rayserve_platform.serving.placement import GIB, actor_options, bundles, engine_options
from rayserve_platform.settings.app import Placement
from rayserve_platform.settings.fake import FakeApp
from rayserve_platform.settings.vllm import VLLMApp

MODEL = {"id": "m", "source": "/models/m"}


def options(engine=None, **placement):
    content = {"model": MODEL, "placement": placement, "engine": engine or {}}
    return engine_options(VLLMApp.model_validate(content))


def test_a_cpu_replica_reserves_its_cores():
    assert options() == {"ray_actor_options": {"num_cpus": 1}}
    assert options(num_cpus=4) == {"ray_actor_options": {"num_cpus": 4}}
    assert options(num_cpus=0) == {"ray_actor_options": {"num_cpus": 0}}


def test_an_engine_that_is_not_vllm_is_one_worker():
    settings = FakeApp.model_validate({"model": MODEL, "placement": {"num_cpus": 2}})
    assert engine_options(settings) == {"ray_actor_options": {"num_cpus": 2}}


@pytest.mark.parametrize("gpus", [0.25, 0.5, 1])
def test_a_gpu_or_a_share_of_one_belongs_to_the_actor(gpus):
    assert options(num_gpus=gpus) == {"ray_actor_options": {"num_cpus": 1, "num_gpus": gpus}}


def test_everything_else_a_replica_needs_is_passed_on():
    assert options(
        num_cpus=2,
        num_gpus=1,
        memory_gib=1.5,
        accelerator_type="H100",
        resources={"disk": 2.0},
        env={"A": "1"},
    ) == {
        "ray_actor_options": {
            "num_cpus": 2,
            "num_gpus": 1,
            "memory": int(1.5 * GIB),
            "accelerator_type": "H100",
            "resources": {"disk": 2.0},
            "runtime_env": {"env_vars": {"A": "1"}},
        }
    }


def test_parallel_workers_on_cpus_need_no_group():
    assert options({"tensor_parallel_size": 2}, num_cpus=4) == {
        "ray_actor_options": {"num_cpus": 4}
    }


def test_four_tensor_parallel_workers_are_four_bundles_of_a_gpu():
    assert options({"tensor_parallel_size": 4}, num_gpus=1, num_cpus=8) == {
        "ray_actor_options": {"num_cpus": 8},
        "placement_group_bundles": [{"GPU": 1, "CPU": 8}, {"GPU": 1}, {"GPU": 1}, {"GPU": 1}],
        "placement_group_strategy": "PACK",
    }


def test_tensor_and_pipeline_parallel_sizes_multiply():
    engine = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    found = options(engine, num_gpus=1)["placement_group_bundles"]
    assert found == [{"GPU": 1, "CPU": 1}, {"GPU": 1}, {"GPU": 1}, {"GPU": 1}]


def test_one_process_group_holds_its_gpus_in_the_actor():
    engine = {"tensor_parallel_size": 4, "distributed_executor_backend": "mp"}
    assert options(engine, num_gpus=1, accelerator_type="A100") == {
        "ray_actor_options": {"num_cpus": 1, "num_gpus": 4, "accelerator_type": "A100"}
    }


def test_every_bundle_asks_for_the_accelerator_and_the_actor_does_not():
    found = options({"tensor_parallel_size": 2}, num_gpus=1, accelerator_type="A100")
    assert "accelerator_type" not in found["ray_actor_options"]
    assert all(
        bundle["accelerator_type:A100"] == 0.001 for bundle in found["placement_group_bundles"]
    )


def test_the_first_bundle_has_room_for_everything_the_actor_asks_for():
    found = options(
        {"tensor_parallel_size": 2},
        num_gpus=1,
        num_cpus=3,
        memory_gib=10,
        resources={"disk": 1.0},
        env={"A": "1"},
    )
    first, second = found["placement_group_bundles"]
    actor = found["ray_actor_options"]
    assert first == {"GPU": 1, "CPU": 3, "disk": 1.0, "memory": 10 * GIB}
    assert second == {"GPU": 1}
    assert actor == {
        "num_cpus": first["CPU"],
        "memory": first["memory"],
        "resources": {"disk": first["disk"]},
        "runtime_env": {"env_vars": {"A": "1"}},
    }


def test_no_two_bundles_are_the_same_object():
    found = bundles(Placement(num_gpus=1), 3)
    found[1]["GPU"] = 99
    assert found[2] == {"GPU": 1}


def test_options_hold_copies_of_the_settings():
    placement = Placement(resources={"disk": 1.0}, env={"A": "1"})
    found = actor_options(placement, gpus=0)
    found["resources"]["disk"] = 2.0
    found["runtime_env"]["env_vars"]["A"] = "2"
    assert (placement.resources, placement.env) == ({"disk": 1.0}, {"A": "1"})
