from typing import Any

import pytest
from pydantic import ValidationError

from rayserve_platform.settings.app import Gateway, Ingress, Limits, Model, Placement, Tgis
from rayserve_platform.settings.fake import FakeApp
from rayserve_platform.settings.model import explain


def problems(kind, **content) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(content)
    return explain(caught.value)


@pytest.mark.parametrize("gpus", [0, 0.25, 0.5, 1, 2, 8.0])
def test_gpus_are_a_share_of_one_or_whole(gpus):
    assert Placement(num_gpus=gpus).num_gpus == gpus


@pytest.mark.parametrize("gpus", [1.5, 2.25, 100.1])
def test_more_than_one_gpu_cannot_be_shared(gpus):
    assert problems(Placement, num_gpus=gpus) == [
        f"args: num_gpus: {gpus} is neither a share of one GPU nor whole"
    ]


def test_an_accelerator_type_needs_a_gpu():
    assert problems(Placement, accelerator_type="H100") == [
        "args: accelerator_type needs num_gpus > 0"
    ]
    assert Placement(accelerator_type="H100", num_gpus=0.5).accelerator_type == "H100"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Placement, {"num_cpus": -1}),
        (Placement, {"num_gpus": -0.5}),
        (Placement, {"memory_gib": 0}),
        (Placement, {"num_cpus": "many"}),
        (Placement, {"env": {"A": 1}}),
        (Placement, {"resources": {"tpu": "x"}}),
        (Limits, {"max_concurrent_requests": 0}),
        (Limits, {"retry_after_s": 0}),
        (Limits, {"max_body_mib": 0}),
        (Ingress, {"protocols": ["soap"]}),
        (Ingress, {"protocols": []}),
        (Ingress, {"num_cpus": -1}),
        (Model, {"id": ""}),
        (Model, {"id": "x" * 257}),
        (Gateway, {"models": {}}),
        (Gateway, {"models": {"a": 3}}),
        (FakeApp, {"model": {"id": "m"}, "topology": "star"}),
    ],
)
def test_a_value_out_of_range_or_of_another_kind_is_refused_once(kind, content):
    assert len(problems(kind, **content)) == 1


def test_a_model_needs_nothing_but_its_id():
    settings = FakeApp.model_validate({"model": {"id": "m"}})
    assert settings.topology == "separate"
    assert settings.ingress.protocols == ("openai",)
    assert (settings.placement.num_cpus, settings.placement.num_gpus) == (1, 0)
    assert problems(FakeApp) == ["model: Field required"]


def test_serves_own_options_pass_untouched():
    options = {"autoscaling_config": {"min_replicas": 1, "max_replicas": 8}, "num_replicas": "auto"}
    content = {"model": {"id": "m"}, "deployment": options, "ingress": {"deployment": options}}
    settings = FakeApp.model_validate(content)
    assert settings.deployment == settings.ingress.deployment == options


def test_the_default_of_new_tokens_is_within_their_limit():
    """The original refused every request that left it out: better to be told at the start."""
    line = "args: default_max_new_tokens: must be <= max_new_tokens (16)"
    assert problems(Tgis, max_new_tokens=16) == [line]
    assert Tgis(max_new_tokens=16, default_max_new_tokens=None).max_new_tokens == 16
    assert (Tgis().default_max_new_tokens, Tgis().max_new_tokens) == (20, 1024)


def test_token_checks_of_a_runtime_without_an_ingress_are_refused():
    checked: dict[str, Any] = {"auth": {"policy": {"authentication": {"a": {"anonymous": {}}}}}}
    content = {"model": {"id": "m"}, "topology": "runtime", "ingress": checked}
    (problem,) = problems(FakeApp, **content)
    assert "ingress.auth: topology 'runtime' has no ingress" in problem
    FakeApp.model_validate({**content, "topology": "separate"})
