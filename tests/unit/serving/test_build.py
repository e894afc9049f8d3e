"""Typed args to Serve applications, built without a cluster."""

import inspect

import pytest
import yaml
from ray import serve

from rayserve_platform.serving.build import (
    HOST_DEFAULTS,
    INGRESS_DEFAULTS,
    OPTIONS,
    app,
    check_options,
    colocated_options,
    gateway,
    host_options,
    ingress_options,
)
from rayserve_platform.settings.app import Gateway, Ingress
from rayserve_platform.settings.fake import FakeApp
from rayserve_platform.settings.vllm import VLLMApp


def fake(**content) -> FakeApp:
    return FakeApp.model_validate({"model": {"id": "m"}, **content})


def deployment(application):
    return application._bound_deployment


def test_every_option_that_is_allowed_is_one_of_serves_decorator():
    assert set(inspect.signature(serve.deployment).parameters) >= OPTIONS
    assert set(HOST_DEFAULTS) | set(INGRESS_DEFAULTS) | {"ray_actor_options"} <= OPTIONS
    assert "name" not in OPTIONS


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("num_replica", "num_replicas"),
        ("autoscaling", "autoscaling_config"),
        ("max_ongoing_request", "max_ongoing_requests"),
        ("ray_actor_option", "ray_actor_options"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(key, meant):
    with pytest.raises(ValueError, match=f"here: unknown .* '{key}'; did you mean '{meant}'"):
        check_options({key: 1}, "here")


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda bad: host_options(fake(deployment=bad)), "deployment"),
        (lambda bad: colocated_options(fake(deployment=bad)), "deployment"),
        (lambda bad: ingress_options(Ingress(deployment=bad)), "ingress.deployment"),
    ],
)
def test_an_unknown_option_says_where_it_stands(make, where):
    with pytest.raises(ValueError, match=f"^{where}: unknown Serve deployment option 'replicas'"):
        make({"replicas": 2})


def test_defaults_apply_where_nothing_is_said():
    assert host_options(fake()) == {**HOST_DEFAULTS, "ray_actor_options": {"num_cpus": 1}}
    assert ingress_options(Ingress()) == {
        **INGRESS_DEFAULTS,
        "ray_actor_options": {"num_cpus": 0.5},
    }
    assert colocated_options(fake()) == {**INGRESS_DEFAULTS, "ray_actor_options": {"num_cpus": 1}}


def test_the_operators_options_win_over_defaults():
    given = {"max_ongoing_requests": 7, "health_check_period_s": 60, "num_replicas": 3}
    assert host_options(fake(deployment=given)).items() >= given.items()
    assert ingress_options(Ingress(deployment=given)).items() >= given.items()
    assert colocated_options(fake(deployment=given)).items() >= given.items()


def test_actor_options_are_merged_key_by_key():
    settings = fake(
        placement={"num_cpus": 2, "memory_gib": 1, "env": {"A": "1"}},
        deployment={"ray_actor_options": {"num_cpus": 3, "label_selector": {"zone": "a"}}},
    )
    assert host_options(settings)["ray_actor_options"] == {
        "num_cpus": 3,
        "memory": 2**30,
        "runtime_env": {"env_vars": {"A": "1"}},
        "label_selector": {"zone": "a"},
    }


def test_autoscaling_passes_untouched_and_sets_the_number_of_replicas():
    scaling = {"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 32}
    found = host_options(fake(deployment={"autoscaling_config": scaling}))
    assert found["autoscaling_config"] == scaling
    assert "num_replicas" not in found


def test_the_defaults_are_never_changed():
    before = repr((HOST_DEFAULTS, INGRESS_DEFAULTS))
    host_options(fake(deployment={"ray_actor_options": {"num_cpus": 9}}))
    ingress_options(Ingress(deployment={"ray_actor_options": {"num_cpus": 9}}))
    assert repr((HOST_DEFAULTS, INGRESS_DEFAULTS)) == before


def test_separate_is_an_ingress_in_front_of_a_runtime():
    settings = fake(
        topology="separate",
        placement={"num_cpus": 4},
        deployment={"num_replicas": 2},
        ingress={"num_cpus": 0.25, "deployment": {"num_replicas": 3}},
    )
    ingress = deployment(app("fake", settings))
    assert (ingress.name, ingress.num_replicas) == ("Ingress", 3)
    assert ingress.ray_actor_options["num_cpus"] == 0.25
    assert ingress.init_args == (settings.ingress,)
    runtime = deployment(ingress.init_kwargs["runtime"])
    assert (runtime.name, runtime.num_replicas) == ("Runtime", 2)
    assert runtime.ray_actor_options["num_cpus"] == 4
    assert runtime.init_args == ("fake", settings)


def test_colocated_is_one_deployment_with_the_engines_placement():
    settings = fake(topology="colocated", placement={"num_cpus": 4})
    ingress = deployment(app("fake", settings))
    assert ingress.name == "Ingress"
    assert ingress.ray_actor_options["num_cpus"] == 4
    assert ingress.init_kwargs == {"engine": ("fake", settings)}
    assert ingress.max_ongoing_requests == INGRESS_DEFAULTS["max_ongoing_requests"]


def test_a_colocated_ingress_is_placed_by_the_deployment_alone():
    settings = fake(topology="colocated", ingress={"deployment": {"num_replicas": 2}})
    with pytest.raises(ValueError, match=r"ingress\.deployment: a colocated ingress"):
        app("fake", settings)


def test_runtime_is_the_runtime_deployment_alone():
    settings = fake(topology="runtime")
    runtime = deployment(app("fake", settings))
    assert (runtime.name, runtime.init_args) == ("Runtime", ("fake", settings))


def test_a_gateway_knows_its_models_and_applications():
    settings = Gateway(models={"big": "app-a", "small": "app-b"})
    ingress = deployment(gateway(settings))
    assert ingress.name == "Ingress"
    assert ingress.init_kwargs == {"apps": {"big": "app-a", "small": "app-b"}}


def test_a_parallel_engine_gets_its_bundles():
    settings = VLLMApp.model_validate(
        {
            "model": {"id": "m", "source": "/m"},
            "placement": {"num_gpus": 1, "num_cpus": 2},
            "engine": {"tensor_parallel_size": 2},
        }
    )
    runtime = deployment(deployment(app("vllm", settings)).init_kwargs["runtime"])
    bundles = runtime._replica_config.placement_group_bundles
    assert bundles == [{"GPU": 1, "CPU": 2}, {"GPU": 1}]
    assert not runtime.ray_actor_options.get("num_gpus")


def test_each_application_gets_an_ingress_class_of_its_own():
    one, two = (deployment(app("fake", fake())) for _ in range(2))
    assert one.func_or_class is not two.func_or_class


def test_building_twice_from_one_setting_gives_the_same_options():
    settings = fake(deployment={"ray_actor_options": {"num_cpus": 2}})
    assert host_options(settings) == host_options(settings)
    assert settings.deployment == {"ray_actor_options": {"num_cpus": 2}}


@pytest.mark.parametrize("topology", ["separate", "colocated"])
def test_a_policy_that_can_not_be_used_is_refused_before_a_replica_starts(topology, tmp_path):
    faulty = {"when": [{"predicate": "request.method ="}]}
    for auth in ({"policy": faulty}, {"policy_file": str(tmp_path / "policy.yaml")}):
        (tmp_path / "policy.yaml").write_text(yaml.safe_dump(faulty))
        settings = fake(topology=topology, ingress={"auth": auth})
        with pytest.raises(ValueError, match="when: ERROR"):
            app("fake", settings)
    elsewhere = {"policy_file": str(tmp_path / "mounted-later.yaml")}
    assert app("fake", fake(topology=topology, ingress={"auth": elsewhere}))
