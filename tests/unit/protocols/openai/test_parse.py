"""Bodies are either understood or refused, by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.protocols.openai.schema import BODIES, Body
from rayserve_platform.protocols.openai.translate import parse

MESSAGES = [{"role": "user", "content": "hi"}]
WHOLE: dict[str, dict[str, Any]] = {
    "chat": {"messages": MESSAGES},
    "completion": {"prompt": "hi"},
    "embeddings": {"input": "hi"},
    "score": {"text_1": "hi", "text_2": "ho"},
    "rerank": {"query": "hi", "documents": ["ho"]},
    "tokenize": {"prompt": "hi"},
    "detokenize": {"tokens": [1]},
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def attempt(verb: str, content: dict) -> tuple[Body | None, PlatformError | None]:
    try:
        return parse(verb, content), None
    except PlatformError as error:
        return None, error


def refusal(verb: str, **fields) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        parse(verb, {**WHOLE[verb], **fields})
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value


def test_there_is_an_example_of_every_body():
    assert set(WHOLE) == set(BODIES)


@pytest.mark.parametrize("verb", BODIES)
@given(data=st.data())
def test_any_json_object_is_a_body_or_a_refusal(verb, data):
    keys = st.sampled_from(sorted(BODIES[verb].model_fields)) | st.text(max_size=8)
    content = data.draw(st.dictionaries(keys, json_values, max_size=6))
    if data.draw(st.booleans()):
        content = {**WHOLE[verb], **content}
    understood, error = attempt(verb, content)
    if error is None:
        assert type(understood) is BODIES[verb]
        return
    assert error.code is Code.INVALID_ARGUMENT
    assert error.param is not None
    assert error.message.endswith(".")
    assert "pydantic" not in error.message


@pytest.mark.parametrize("verb", BODIES)
def test_an_unknown_field_is_refused_by_name(verb):
    for name in ("max_token", "a.b", "[x]", "str", ""):
        error = refusal(verb, **{name: 1})
        assert error.param == name
        assert error.message == f"'{name}' is not supported by this model's runtime."


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": True},
        {"functions": []},
        {"modalities": ["audio"]},
        {"audio": {"voice": "alloy"}},
        {"prediction": {}},
        {"reasoning_effort": "low"},
        {"web_search_options": {}},
        {"use_beam_search": True},
    ],
)
def test_what_only_an_openai_server_of_the_engines_own_can_do_is_refused_by_name(fields):
    (name,) = fields
    error = refusal("chat", **fields)
    assert (error.param, name in error.message) == (name, True)


@pytest.mark.parametrize("name", ["suffix", "best_of", "use_beam_search"])
def test_completion_fields_without_translation_are_refused_by_name(name):
    assert refusal("completion", **{name: 1}).param == name


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", "refusal"])
def test_a_part_of_a_message_that_is_not_text_is_refused_by_its_place(kind):
    text = {"type": "text", "text": "What is this?"}
    content = [text, {"type": kind, kind: {"url": "data:,"}}]
    error = refusal("chat", messages=[*MESSAGES, {"role": "user", "content": content}])
    assert error.param == "messages"
    assert error.message == "'messages.1.content.1.type': Input should be 'text'."


@pytest.mark.parametrize(
    ("verb", "fields", "param", "message"),
    [
        ("chat", {"messages": []}, "messages", "'messages': List should have at least 1 item"),
        ("chat", {"messages": 3}, "messages", "'messages': Input should be a valid list"),
        (
            "chat",
            {"messages": [{"role": "robot", "content": "hi"}]},
            "messages",
            "'messages.0.role': Input should be 'system', 'developer', 'user'",
        ),
        ("chat", {"messages": [{"content": "hi"}]}, "messages", "'messages.0.role' is required."),
        ("chat", {"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ("chat", {"temperature": "hot"}, "temperature", "'temperature': Input should be a valid"),
        ("chat", {"top_p": 0}, "top_p", "greater than 0"),
        ("chat", {"n": 0}, "n", "greater than or equal to 1"),
        ("chat", {"n": 129}, "n", "less than or equal to 128"),
        ("chat", {"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ("chat", {"top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ("chat", {"stop": 5}, "stop", "'stop': Input should be a valid string"),
        ("chat", {"stop": ["a"] * 65}, "stop", "'stop': List should have at most 64 items"),
        ("chat", {"logit_bias": {"x": 1}}, "logit_bias", "valid integer"),
        ("chat", {"logit_bias": {"1": 101}}, "logit_bias", "less than or equal to 100"),
        ("chat", {"response_format": {"type": "xml"}}, "response_format", "'text', 'json_object'"),
        ("chat", {"stream_options": {"x": 1}}, "stream_options", "'stream_options.x' is not"),
        ("completion", {"prompt": [1, "a"]}, "prompt", "'prompt.1': Input should be a valid int"),
        ("completion", {"prompt": [[1], ["a"]]}, "prompt", "'prompt.1.0': Input should be a valid"),
        ("completion", {"prompt": [-1]}, "prompt", "'prompt.0': Input should be greater than or"),
        ("completion", {"prompt": [[]]}, "prompt", "'prompt.0': List should have at least 1 item"),
        ("completion", {"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ("embeddings", {"encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ("embeddings", {"dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ("detokenize", {"tokens": [-1]}, "tokens", "'tokens.0': Input should be greater than"),
        ("tokenize", {"prompt": 3}, "prompt", "'prompt': Input should be a valid string"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_limit(verb, fields, param, message):
    error = refusal(verb, **fields)
    assert error.param == param
    assert message in error.message


@pytest.mark.parametrize(
    ("verb", "field"),
    [
        ("chat", "messages"),
        ("completion", "prompt"),
        ("embeddings", "input"),
        ("detokenize", "tokens"),
    ],
)
def test_a_missing_field_is_named(verb, field):
    with pytest.raises(PlatformError) as caught:
        parse(verb, {})
    assert (caught.value.param, caught.value.message) == (field, f"'{field}' is required.")


@pytest.mark.parametrize("verb", BODIES)
def test_fields_of_openai_that_change_nothing_are_accepted(verb):
    ignored = {
        "user": "u",
        "metadata": {"a": 1},
        "store": False,
        "service_tier": "auto",
        "safety_identifier": "s",
    }
    assert parse(verb, {**WHOLE[verb], **ignored}).user == "u"
