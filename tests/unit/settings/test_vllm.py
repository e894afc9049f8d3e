"""vLLM's argument names and types, checked without importing it."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from rayserve_platform.settings import vllm
from rayserve_platform.settings.model import explain
from rayserve_platform.settings.vllm import (
    NOT_OURS,
    OURS,
    SCALED_BY_SERVE,
    VLLMApp,
    argument_types,
    check_arguments,
)

MODEL = {"id": "m", "source": "/models/m"}


def app(**content) -> VLLMApp:
    return VLLMApp.model_validate({"model": MODEL, **content})


def problem(**content) -> str:
    with pytest.raises(ValidationError) as caught:
        app(**content)
    (line,) = explain(caught.value)
    return line


@pytest.fixture
def without_vllm(monkeypatch):
    """A machine on which vLLM is not installed."""
    monkeypatch.setattr(vllm, "argument_types", lambda group: None)


def test_names_are_found_in_the_installed_packages_source():
    engine, frontend = argument_types("engine"), argument_types("frontend")
    assert engine is not None
    assert frontend is not None
    assert {"max_model_len", "tensor_parallel_size", "dtype", "quantization"} <= set(engine)
    assert {"response_role", "chat_template", "lora_modules"} <= set(frontend)
    assert set(OURS) | NOT_OURS <= set(engine) | set(frontend)
    assert not set(OURS) & NOT_OURS


def test_checking_names_imports_neither_vllm_nor_torch():
    code = (
        "import sys\n"
        "from rayserve_platform.settings.vllm import VLLMApp\n"
        "VLLMApp.model_validate({'model': {'id': 'm', 'source': '/m'},"
        " 'engine': {'max_model_len': 8}, 'frontend': {'response_role': 'a'}})\n"
        "print(sorted({'vllm', 'torch', 'ray'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("group", "key", "meant"),
    [
        ("engine", "max_model_length", "max_model_len"),
        ("engine", "tensor_parallel", "tensor_parallel_size"),
        ("engine", "gpu_memory_utilisation", "gpu_memory_utilization"),
        ("engine", "enforce-eager", "enforce_eager"),
        ("frontend", "response_roles", "response_role"),
    ],
)
def test_an_unknown_argument_names_the_nearest(group, key, meant):
    assert problem(**{group: {key: 1}}) == (
        f"{group}: unknown vLLM argument '{key}'; did you mean '{meant}'?"
    )


def test_the_nearest_argument_is_never_one_that_is_refused():
    for name in ("hosts", "ports", "models", "served_model_names", "api_keys"):
        assert not any(f"'{own}'?" in problem(frontend={name: 1}) for own in {*OURS, *NOT_OURS})


@pytest.mark.parametrize("key", sorted(OURS))
def test_an_argument_with_a_setting_of_its_own_names_it(key):
    for group in ("engine", "frontend"):
        assert problem(**{group: {key: "x"}}) == f"{group}: '{key}' is set through '{OURS[key]}'"


@pytest.mark.parametrize("key", sorted(NOT_OURS))
def test_an_argument_of_vllms_own_sockets_is_refused(key):
    assert "has no effect here" in problem(frontend={key: "x"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_model_len", 2048),
        ("max_model_len", "8k"),
        ("max_model_len", "1.5G"),
        ("max_model_len", None),
        ("enforce_eager", True),
        ("gpu_memory_utilization", 0.9),
        ("gpu_memory_utilization", 1),
        ("tokenizer", "/t"),
        ("revision", None),
        ("dtype", "bfloat16"),
        ("compilation_config", {"level": 3}),
        ("hf_overrides", {"a": 1}),
        ("limit_mm_per_prompt", {"image": 2}),
    ],
)
def test_a_value_of_the_right_kind_is_accepted(key, value):
    assert app(engine={key: value}).engine == {key: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_model_len", True),
        ("max_model_len", 8.5),
        ("max_model_len", [1]),
        ("max_model_len", "long"),
        ("enforce_eager", 1),
        ("enforce_eager", "yes"),
        ("gpu_memory_utilization", "high"),
        ("gpu_memory_utilization", True),
        ("tokenizer", 5),
        ("tokenizer", False),
        ("seed", {"a": 1}),
    ],
)
def test_a_scalar_of_the_wrong_kind_is_refused_with_the_type_expected(key, value):
    types = argument_types("engine")
    assert types is not None
    assert problem(engine={key: value}) == f"engine: '{key}' must be {types[key]}, got {value!r}"


def test_without_vllm_names_and_types_are_not_checked_but_ours_are(without_vllm):
    check_arguments({"whatever": object()}, "engine")
    assert problem(engine={"model": "x"}) == "engine: 'model' is set through 'model.source'"


@pytest.mark.parametrize(
    ("engine", "workers"),
    [
        ({}, 1),
        ({"tensor_parallel_size": 4}, 4),
        ({"pipeline_parallel_size": 3}, 3),
        ({"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, 4),
        ({"tensor_parallel_size": None}, 1),
    ],
)
def test_workers_are_tensor_times_pipeline_parallel_size(engine, workers):
    assert app(engine=engine).workers == workers


@pytest.mark.parametrize("size", [0, -1, "2k", [1], {"a": 1}])
@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_a_parallel_size_that_is_no_count_is_refused_even_without_vllm(without_vllm, name, size):
    assert problem(engine={name: size}) == (
        f"args: engine.{name}: must be a whole number from 1, got {size!r}"
    )


def test_a_source_is_required():
    with pytest.raises(ValidationError, match=r"model\.source: required"):
        VLLMApp.model_validate({"model": {"id": "m"}})


@pytest.mark.parametrize("num_gpus", [0.5, 2])
def test_each_of_several_parallel_workers_takes_one_whole_gpu(num_gpus):
    line = problem(engine={"tensor_parallel_size": 2}, placement={"num_gpus": num_gpus})
    assert line == (
        f"args: placement.num_gpus: {float(num_gpus)} is for each of 2 parallel workers, and a "
        "worker takes one whole GPU: 1 (or 0 on CPUs)"
    )
    assert app(engine={"tensor_parallel_size": 2}, placement={"num_gpus": 1}).workers == 2


def test_adapters_need_lora_switched_on():
    adapter = {"name": "poet", "path": "/lora/poet"}
    assert problem(lora=[adapter], engine={"enable_lora": False}).endswith("enable_lora is false")
    off = problem(adapters_dir="/lora", engine={"enable_lora": False})
    assert off.endswith("adapters_dir: engine.enable_lora is false")
    assert app(lora=[adapter]).lora[0].name == "poet"
    for half in ({"name": "poet"}, {"path": "/p"}, {"name": "", "path": "/p"}):
        assert problem(lora=[half]).startswith("lora.0.")


def test_a_share_of_a_gpu_bounds_its_memory():
    shared = {"num_gpus": 0.5}
    line = problem(engine={"gpu_memory_utilization": 0.9}, placement=shared)
    assert line.endswith("more than this replica's share of the GPU, placement.num_gpus 0.5")
    assert app(engine={"gpu_memory_utilization": 0.5}, placement=shared).workers == 1


@pytest.mark.parametrize("name", sorted(SCALED_BY_SERVE))
def test_what_makes_an_engine_several_is_left_to_serve(name):
    assert "deployment.num_replicas" in problem(engine={name: 2})
