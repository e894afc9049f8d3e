"""What holds for any content of a config's `args`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayserve_platform.settings.app import Gateway, Ingress, Limits, Model, Placement
from rayserve_platform.settings.fake import FakeApp, FakeEngine
from rayserve_platform.settings.model import Settings, explain
from rayserve_platform.settings.torch import TorchApp, TorchEngine
from rayserve_platform.settings.vllm import Lora, VLLMApp, argument_types

ROOTS: list[type[Settings]] = [FakeApp, TorchApp, VLLMApp, Gateway]
PARTS: list[type[Settings]] = [Model, Placement, Limits, Ingress, FakeEngine, TorchEngine, Lora]
NAMES = sorted({name for kind in (*ROOTS, *PARTS) for name in kind.model_fields})
ARGUMENTS = sorted(argument_types("engine") or ())

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**6)
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["separate", "colocated", "runtime", "openai", "8k", "/models/m"])
)
keys = st.sampled_from(NAMES) | st.sampled_from(ARGUMENTS) | st.text(max_size=8) | st.integers(0, 3)
contents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=15,
)

names = st.text(min_size=1, max_size=20)
options = st.dictionaries(names, st.integers() | names, max_size=2)
placements = st.one_of(
    st.fixed_dictionaries(
        {"num_gpus": st.sampled_from([0.25, 0.5, 1, 2]), "accelerator_type": st.none() | names}
    ),
    st.fixed_dictionaries(
        {
            "num_cpus": st.integers(0, 64),
            "memory_gib": st.none() | st.floats(0.5, 100),
            "resources": st.dictionaries(names, st.floats(0, 9), max_size=2),
            "env": st.dictionaries(names, names, max_size=2),
        }
    ),
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "max_concurrent_requests": st.integers(1, 10**4),
        "retry_after_s": st.floats(0.1, 60),
        "max_body_mib": st.floats(0.1, 1000),
    },
)
ingresses = st.fixed_dictionaries(
    {}, optional={"limits": limits, "docs": st.booleans(), "deployment": options}
)
apps = {
    "model": st.fixed_dictionaries(
        {"id": names, "source": names, "aliases": st.lists(names, max_size=2)}
    ),
    "topology": st.sampled_from(["separate", "colocated", "runtime"]),
    "placement": placements,
    "ingress": ingresses,
    "deployment": options,
}
engines = st.fixed_dictionaries(
    {},
    optional={
        "max_model_len": st.integers(1, 10**6) | st.sampled_from(["8k", None]),
        "enforce_eager": st.booleans(),
        "gpu_memory_utilization": st.floats(0.1, 0.25),
        "dtype": st.sampled_from(["auto", "float32"]),
        "pipeline_parallel_size": st.just(1),
    },
)
fakes = st.fixed_dictionaries(
    {}, optional={"token_s": st.floats(0, 9), "dimension": st.integers(1, 9)}
)
writers = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
        "max_batch_size": st.integers(1, 99),
        "max_model_len": st.none() | st.integers(1, 10**6),
    },
)
adapters = st.lists(st.fixed_dictionaries({"name": names, "path": names}), max_size=2)
VALID = {
    FakeApp: st.fixed_dictionaries({**apps, "fake": fakes}),
    TorchApp: st.fixed_dictionaries(
        {
            **apps,
            "placement": st.fixed_dictionaries({"num_gpus": st.sampled_from([0, 0.25, 1])}),
            "engine": writers,
            "chat_template": st.none() | names,
        }
    ),
    VLLMApp: st.fixed_dictionaries(
        {**apps, "engine": engines, "lora": adapters, "tool_parser": st.none() | names}
    ),
    Gateway: st.fixed_dictionaries(
        {"models": st.dictionaries(names, names, min_size=1, max_size=3), "ingress": ingresses}
    ),
}


def attempt(kind, content) -> tuple[Settings | None, list[str]]:
    try:
        return kind.model_validate(content), []
    except ValidationError as error:
        return None, explain(error)


@pytest.mark.parametrize("kind", ROOTS)
@given(data=st.data())
def test_any_content_is_accepted_or_explained(kind, data):
    content = data.draw(contents)
    if data.draw(st.booleans()):
        broken = st.dictionaries(st.sampled_from(sorted(kind.model_fields)), contents, max_size=2)
        content = {**data.draw(VALID[kind]), **data.draw(broken)}
    settings, lines = attempt(kind, content)
    if settings is None:
        assert lines
        assert all(": " in line and "errors.pydantic.dev" not in line for line in lines)


@pytest.mark.parametrize("kind", ROOTS)
@given(data=st.data())
def test_valid_settings_survive_dumping_and_loading(kind, data):
    content = data.draw(VALID[kind])
    settings = kind.model_validate(content)
    assert kind.model_validate(settings.model_dump()) == settings
    assert kind.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("kind", ROOTS)
@given(data=st.data())
def test_valid_settings_with_one_more_key_are_refused_by_its_name(kind, data):
    content = data.draw(VALID[kind])
    key = data.draw(st.text(min_size=1, max_size=8).filter(lambda k: k not in kind.model_fields))
    settings, lines = attempt(kind, {**content, key: 1})
    assert settings is None
    assert lines[0].startswith(f"args: unknown setting '{key}'; ")


@pytest.mark.parametrize("kind", ROOTS)
@given(data=st.data())
def test_the_content_that_was_given_is_not_changed(kind, data):
    content = data.draw(VALID[kind])
    before = repr(content)
    kind.model_validate(content)
    assert repr(content) == before
