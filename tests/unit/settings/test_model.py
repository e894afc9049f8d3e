import inspect

import pytest
from pydantic import Field, ValidationError

from rayserve_platform.settings.app import App, Gateway, Ingress, Limits, Model, Placement
from rayserve_platform.settings.fake import FakeApp, FakeEngine
from rayserve_platform.settings.model import Settings, explain, unknown_key
from rayserve_platform.settings.vllm import Lora, VLLMApp

CLASSES = [App, FakeApp, FakeEngine, Gateway, Ingress, Limits, Lora, Model, Placement, VLLMApp]


def problems(kind, content) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(content)
    return explain(caught.value)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_settings_class_is_frozen_and_refuses_unknown_keys(kind):
    assert issubclass(kind, Settings)
    assert kind.model_config["frozen"]
    assert kind.model_config["extra"] == "forbid"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_setting_is_described_by_itself_or_by_its_class(kind):
    for name, field in kind.model_fields.items():
        inner = field.annotation
        is_group = inspect.isclass(inner) and issubclass(inner, Settings)
        assert field.description or (is_group and inner.__doc__), name


@pytest.mark.parametrize(
    ("kind", "key", "meant"),
    [
        (Model, "source_", "source"),
        (Model, "Id", "id"),
        (Placement, "num_gpu", "num_gpus"),
        (Placement, "memory_gb", "memory_gib"),
        (Limits, "max_concurent_requests", "max_concurrent_requests"),
        (Ingress, "protocol", "protocols"),
        (FakeEngine, "token", "token_s"),
        (VLLMApp, "tool_parsers", "tool_parser"),
        (VLLMApp, "loras", "lora"),
        (Gateway, "model", "models"),
        (Lora, "base_model", "base_model_name"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(kind, key, meant):
    assert problems(kind, {key: 1}) == [f"args: unknown setting '{key}'; did you mean '{meant}'?"]


def test_an_unknown_key_that_resembles_nothing_names_all():
    (line,) = problems(Model, {"zzzzzz": 1})
    assert line == "args: unknown setting 'zzzzzz'; known: aliases, id, source"


def test_an_unknown_key_deep_inside_is_reported_at_its_place():
    content = {"model": {"id": "m"}, "ingress": {"limits": {"retry_after": 1}}}
    assert problems(FakeApp, content) == [
        "ingress.limits: unknown setting 'retry_after'; did you mean 'retry_after_s'?"
    ]


def test_a_setting_with_another_name_in_yaml_is_known_by_that_name():
    class Aliased(Settings):
        own: int = Field(alias="theirs")

    assert Aliased.model_validate({"theirs": 1}).own == 1
    assert problems(Aliased, {"own": 1}) == ["args: unknown setting 'own'; known: theirs"]


def test_every_problem_has_a_line_with_its_place_and_no_link():
    content = {"model": {"id": ""}, "fake": {"token_s": -1, "dimension": "x"}, "topology": "ring"}
    lines = problems(FakeApp, content)
    assert [line.split(":")[0] for line in lines] == [
        "topology",
        "model.id",
        "fake.token_s",
        "fake.dimension",
    ]
    assert "greater than or equal to 0" in lines[2]
    assert not any("http" in line or "\n" in line for line in lines)


def test_a_problem_in_a_list_names_its_position():
    content = {"model": {"id": "m", "aliases": ["ok", 3]}}
    assert problems(FakeApp, content) == ["model.aliases.1: Input should be a valid string"]


@pytest.mark.parametrize("content", [None, 3, "text", [1], {"model": None}])
def test_content_of_another_kind_is_explained(content):
    assert problems(FakeApp, content)


def test_settings_never_change_after_loading():
    settings = FakeApp.model_validate({"model": {"id": "m"}})
    for target, name in ((settings, "topology"), (settings.model, "id"), (settings.fake, "load_s")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(target, name, "x")


def test_the_hint_is_sorted_and_case_sensitive():
    assert unknown_key("b", ["zeta", "alpha"], "thing") == "unknown thing 'b'; known: alpha, zeta"
    assert (
        unknown_key("alpah", ["zeta", "alpha"], "x") == "unknown x 'alpah'; did you mean 'alpha'?"
    )
