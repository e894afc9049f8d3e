"""Settings through vLLM's real parser."""

import pytest
from vllm.multimodal.media import MediaConnector

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.vllm import arguments
from rayserve_platform.runtimes.vllm.arguments import parse, server_values
from rayserve_platform.settings.vllm import VLLMApp

TEMPLATE = "{% for m in messages %}{{ m['content'] }} -- {% endfor %}"


def parsed(**values):
    return parse({"model": "/models/m", **values})


def refusal(**values) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        parsed(**values)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value


@pytest.fixture
def values_of(tmp_path, monkeypatch):
    """Returns what vLLM is told for some settings, on a machine without a default of its own."""
    monkeypatch.setattr(arguments, "engine_defaults", lambda *_, **__: {"dtype": "float32"})

    def values(**content):
        model = {"id": "m", "aliases": ["n"], "source": str(tmp_path)}
        settings = VLLMApp.model_validate({"model": model, **content})
        return server_values(settings, tmp_path, cpu=True)

    return values


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("max_model_len", 2048, 2048),
        ("max_model_len", "8k", 8000),
        ("max_model_len", "1K", 1024),
        ("gpu_memory_utilization", 0.5, 0.5),
        ("kv_cache_memory_bytes", 2**30, 2**30),
        ("seed", -1, -1),
        ("dtype", "float32", "float32"),
        ("tokenizer", "-starts-with-a-dash", "-starts-with-a-dash"),
        ("revision", "with space", "with space"),
        ("enforce_eager", True, True),
        ("enforce_eager", False, False),
        ("enable_prefix_caching", True, True),
        ("enable_prefix_caching", False, False),
        ("async_scheduling", False, False),
        ("disable_log_stats", True, True),
        ("disable_log_stats", False, False),
        ("hf_token", True, True),
        ("hf_token", False, None),
        ("hf_token", "secret", "secret"),
        ("hf_overrides", {"a": {"b": [1, "x"]}}, {"a": {"b": [1, "x"]}}),
        ("limit_mm_per_prompt", {"image": 2}, {"image": 2}),
        ("speculative_config", {"method": "ngram"}, {"method": "ngram"}),
        ("override_generation_config", {"temperature": 0.5}, {"temperature": 0.5}),
        ("default_chat_template_kwargs", {"thinking": False}, {"thinking": False}),
        ("cudagraph_capture_sizes", [1, 2, 4], [1, 2, 4]),
        ("ignore_patterns", ("a*", "b c"), ["a*", "b c"]),
        ("served_model_name", ["m", "org/n", "with space"], ["m", "org/n", "with space"]),
        ("chat_template", TEMPLATE, TEMPLATE),
        ("response_role", "bot", "bot"),
        ("tool_strict_level", "parameter", "parameter"),
    ],
)
def test_a_value_arrives_as_it_was_meant(name, given, read):
    assert getattr(parsed(**{name: given}), name) == read


def test_what_is_not_given_keeps_vllms_own_default():
    plain, given = vars(parsed()), vars(parsed(enable_prefix_caching=None, seed=5))
    assert {key for key in plain if plain[key] != given[key]} == {"seed"}


def test_nested_config_becomes_vllms_own_object():
    found = parsed(structured_outputs_config={"backend": "xgrammar"}).structured_outputs_config
    assert found.backend == "xgrammar"


def test_adapters_become_vllms_own_objects():
    modules = [{"name": "a", "path": "/p q"}, {"name": "b", "path": "/r", "base_model_name": "m"}]
    found = parsed(enable_lora=True, lora_modules=modules).lora_modules
    assert [(m.name, m.path, m.base_model_name) for m in found] == [
        ("a", "/p q", None),
        ("b", "/r", "m"),
    ]


def test_a_directory_of_adapters_switches_lora_on(values_of):
    values = values_of(adapters_dir="/mnt/adapters")
    assert values["enable_lora"] is True
    assert "lora_modules" not in values
    assert "enable_lora" not in values_of()


def test_a_template_file_may_be_given(tmp_path):
    path = tmp_path / "chat.jinja"
    path.write_text(TEMPLATE)
    assert parsed(chat_template=str(path)).chat_template == str(path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dtype": "float99"}, ["--dtype", "'float99'", "'float32'"]),
        ({"max_model_len": "long"}, ["--max-model-len", "'long'"]),
        ({"tool_strict_level": "x"}, ["--tool-strict-level", "'x'", "parameter"]),
        ({"limit_mm_per_prompt": "x"}, ["--limit-mm-per-prompt", "x"]),
        ({"kv_transfer_config": {"nonsense": 1}}, ["--kv-transfer-config", "nonsense"]),
        ({"compilation_config": {"nonsense": 1}}, ["--compilation-config", "nonsense"]),
        ({"chat_template": "/no/such/file.jinja"}, ["/no/such/file.jinja", "doesn't exist"]),
        ({"enable_auto_tool_choice": True}, ["--tool-call-parser"]),
    ],
)
def test_a_value_that_vllm_refuses_is_explained_in_one_line(values, words):
    message = refusal(**values).message
    assert message.startswith("vLLM: ")
    assert all(word in message for word in words)
    assert "\n" not in message
    assert "usage:" not in message
    assert "errors.pydantic.dev" not in message


@pytest.mark.parametrize("name", ["nonsense", "mamba_config"])
def test_an_argument_without_an_option_is_refused_by_name(name):
    error = refusal(**{name: 1})
    assert (error.param, error.message) == (name, f"vLLM has no option for '{name}'.")


def test_the_engine_fetches_nothing_by_itself(values_of):
    allowed = parsed(allowed_media_domains=values_of()["allowed_media_domains"])
    connector = MediaConnector(allowed_media_domains=allowed.allowed_media_domains)
    with pytest.raises(ValueError, match="must be from one of the allowed domains"):
        connector.fetch_image("http://127.0.0.1:1/a.png")


def test_the_model_is_served_under_its_own_names_from_its_directory(values_of, tmp_path):
    values = values_of()
    assert values == {
        "dtype": "float32",
        "model": str(tmp_path),
        "served_model_name": ["m", "n"],
        "disable_uvicorn_access_log": True,
        "allowed_media_domains": [arguments.NO_DOMAIN],
    }
    assert parse(values).served_model_name == ["m", "n"]


def test_what_the_operator_gives_wins_over_defaults(values_of):
    values = values_of(engine={"dtype": "bfloat16"}, frontend={"response_role": "bot"})
    assert (values["dtype"], values["response_role"]) == ("bfloat16", "bot")


def test_parsers_templates_and_adapters_have_settings_of_their_own(values_of):
    values = values_of(
        chat_template=TEMPLATE,
        tool_parser="hermes",
        reasoning_parser="qwen3",
        lora=[{"name": "poet", "path": "/lora/poet"}],
    )
    found = parse(values)
    assert found.chat_template == TEMPLATE
    assert (found.tool_call_parser, found.enable_auto_tool_choice) == ("hermes", True)
    assert found.reasoning_parser == "qwen3"
    assert found.enable_lora is True
    assert [(m.name, m.path) for m in found.lora_modules] == [("poet", "/lora/poet")]
