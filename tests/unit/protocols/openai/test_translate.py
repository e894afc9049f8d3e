"""Every field of a body arrives in the vocabulary."""

import json

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chat,
    Details,
    Generate,
    Guided,
    Sampling,
    Stopping,
    Turn,
)
from rayserve_platform.protocols.openai.schema import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    Generation,
)
from rayserve_platform.protocols.openai.translate import (
    to_chat_generate,
    to_completion_generates,
    to_embed,
)

MESSAGES = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

GENERATION_FIELDS = {
    "min_tokens": (3, lambda g: g.stopping.min_new_tokens, 3),
    "temperature": (0.5, lambda g: g.sampling.temperature, 0.5),
    "top_p": (0.9, lambda g: g.sampling.top_p, 0.9),
    "top_k": (7, lambda g: g.sampling.top_k, 7),
    "min_p": (0.1, lambda g: g.sampling.min_p, 0.1),
    "n": (3, lambda g: g.n, 3),
    "seed": (42, lambda g: g.sampling.seed, 42),
    "stop": (["a", "b"], lambda g: g.stopping.stop_sequences, ("a", "b")),
    "stop_token_ids": ([1, 2], lambda g: g.stopping.stop_token_ids, (1, 2)),
    "include_stop_str_in_output": (True, lambda g: g.stopping.include_stop_sequence, True),
    "ignore_eos": (True, lambda g: g.stopping.ignore_eos, True),
    "frequency_penalty": (-1.5, lambda g: g.sampling.frequency_penalty, -1.5),
    "presence_penalty": (1.5, lambda g: g.sampling.presence_penalty, 1.5),
    "repetition_penalty": (1.1, lambda g: g.sampling.repetition_penalty, 1.1),
    "logit_bias": ({"5": -100, "6": 1.5}, lambda g: g.sampling.logit_bias, {5: -100, 6: 1.5}),
    "stream": (True, lambda g: g.stream, True),
    "truncate_prompt_tokens": (9, lambda g: g.truncate_prompt_tokens, 9),
    "skip_special_tokens": (False, lambda g: g.skip_special_tokens, False),
    "add_special_tokens": (False, lambda g: g.add_special_tokens, False),
    "priority": (-2, lambda g: g.priority, -2),
    "max_tokens": (33, lambda g: g.stopping.max_new_tokens, 33),
    "structured_outputs": (
        {"regex": "a+"},
        lambda g: g.guided,
        Guided(kind="regex", value="a+"),
    ),
    "response_format": ({"type": "json_object"}, lambda g: g.guided, Guided(kind="json")),
}
"""Field → (value sent, where it is to be found, value expected there)."""

ANSWERED_BY_THE_INGRESS = {"stream_options"}


def chat(**fields) -> Generate:
    body = ChatBody.model_validate({"messages": MESSAGES, **fields})
    return to_chat_generate(body, model="m", adapter="poet", request_id="r")


def completions(**fields) -> list[Generate]:
    body = CompletionBody.model_validate({"prompt": "hi", **fields})
    return to_completion_generates(body, model="m", adapter="poet", request_id="r")


def completion(**fields) -> Generate:
    (request,) = completions(**fields)
    return request


def refused(call, **fields) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        call(**fields)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value


def test_every_shared_field_of_generation_is_tested_here():
    own = set(Generation.model_fields) - set(EmbeddingBody.model_fields)
    assert own | {"truncate_prompt_tokens"} == set(GENERATION_FIELDS) | ANSWERED_BY_THE_INGRESS


@pytest.mark.parametrize("make", [chat, completion])
@pytest.mark.parametrize("field", GENERATION_FIELDS)
def test_each_field_arrives_and_nothing_else_changes(make, field):
    sent, read, expected = GENERATION_FIELDS[field]
    request = make(**{field: sent})
    assert read(request) == expected
    plain = make()
    assert read(plain) != expected
    others = [r for name, (_, r, _) in GENERATION_FIELDS.items() if name != field]
    changed = [r for r in others if r(request) != r(plain)]
    assert all(r(request) == expected for r in changed)


def test_a_plain_chat_is_the_conversation_and_the_models_own_choices():
    assert chat() == Generate(
        model="m",
        prompt=Chat(turns=(Turn(role="user", content="hi"),)),
        sampling=Sampling(),
        stopping=Stopping(),
        details=Details(),
        adapter="poet",
        request_id="r",
    )


def test_a_plain_completion_has_openais_default_length():
    assert completion() == Generate(
        model="m",
        prompt="hi",
        stopping=Stopping(max_new_tokens=16),
        adapter="poet",
        request_id="r",
    )


def test_the_newer_limit_of_a_chat_wins():
    assert chat(max_tokens=5, max_completion_tokens=7).stopping.max_new_tokens == 7
    assert chat(max_completion_tokens=7).stopping.max_new_tokens == 7


def test_messages_become_turns_and_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "developer", "content": ""},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "42"},
    ]
    prompt = chat(messages=messages).prompt
    assert isinstance(prompt, Chat)
    assert [(turn.role, turn.content) for turn in prompt.turns] == [
        ("system", "be kind"),
        ("developer", ""),
        ("user", "ab"),
        ("assistant", ""),
        ("tool", "42"),
    ]


def test_template_options_of_a_chat_arrive():
    prompt = chat(
        add_generation_prompt=False,
        continue_final_message=True,
        chat_template_kwargs={"thinking": False},
    ).prompt
    assert isinstance(prompt, Chat)
    assert not prompt.add_generation_prompt
    assert prompt.continue_final_message
    assert prompt.template_kwargs == {"thinking": False}


def test_logprobs_of_a_chat_ask_for_tokens_and_alternatives():
    assert chat(logprobs=True).details == Details(generated_tokens=True, logprobs=True)
    asked = chat(logprobs=True, top_logprobs=5).details
    assert asked == Details(generated_tokens=True, logprobs=True, top_n_tokens=5)
    assert refused(chat, top_logprobs=5).param == "top_logprobs"


def test_logprobs_of_a_completion_ask_for_tokens_even_when_zero():
    assert completion(logprobs=0).details == Details(generated_tokens=True, logprobs=True)
    assert completion(logprobs=2).details.top_n_tokens == 2


def test_echo_asks_for_the_prompt_and_its_tokens_where_logprobs_are_wanted():
    assert completion(echo=True).details == Details(input_text=True)
    asked = completion(echo=True, logprobs=1).details
    assert (asked.input_text, asked.input_tokens, asked.top_n_tokens) == (True, True, 1)
    assert refused(completion, echo=True, stream=True).param == "echo"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [(1, 2)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
def test_the_four_forms_of_a_prompt_are_told_apart(prompt, expected):
    assert [request.prompt for request in completions(prompt=prompt)] == expected
    body = EmbeddingBody.model_validate({"input": prompt})
    assert list(to_embed(body, model="m", request_id="r").inputs) == expected


def test_no_prompt_at_all_is_refused_under_the_fields_own_name():
    assert refused(completions, prompt=[]).param == "prompt"
    with pytest.raises(PlatformError) as caught:
        to_embed(EmbeddingBody.model_validate({"input": []}), model="m", request_id="r")
    assert caught.value.param == "input"


def test_one_stop_text_is_a_list_of_one_and_an_empty_one_is_refused():
    assert chat(stop="END").stopping.stop_sequences == ("END",)
    assert chat(stop=[]).stopping.stop_sequences == ()
    for stop in ("", ["a", ""]):
        assert refused(chat, stop=stop).param == "stop"


def test_more_least_tokens_than_most_are_refused_with_the_limit():
    error = refused(chat, min_tokens=9, max_tokens=8)
    assert (error.param, error.message) == ("min_tokens", "'min_tokens' must be at most 8.")
    assert refused(completion, min_tokens=17).message == "'min_tokens' must be at most 16."
    assert chat(min_tokens=8, max_tokens=8).stopping.min_new_tokens == 8


def test_a_json_schema_is_passed_as_text():
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    for fields in ({"response_format": wanted}, {"structured_outputs": {"json": SCHEMA}}):
        guided = chat(**fields).guided
        assert guided is not None
        assert guided.kind == "json_schema"
        assert json.loads(str(guided.value)) == SCHEMA
    assert chat(response_format={"type": "text"}).guided is None


@pytest.mark.parametrize("half", [{}, {"json_schema": {"name": "x"}}])
def test_a_json_schema_without_a_schema_is_refused(half):
    error = refused(chat, response_format={"type": "json_schema", **half})
    assert error.message == "'response_format.json_schema.schema' is required."


def test_two_guides_are_refused():
    both = {"regex": "a", "json": "{}"}
    assert refused(chat, structured_outputs=both).param == "response_format"


@pytest.mark.parametrize(
    ("form", "guided"),
    [
        ({"choice": ["a", "b"]}, Guided(kind="choice", value=("a", "b"))),
        ({"grammar": "root ::= x"}, Guided(kind="grammar", value="root ::= x")),
        ({"json": "{}"}, Guided(kind="json_schema", value="{}")),
        ({"json_object": True}, Guided(kind="json")),
    ],
)
def test_every_form_of_structured_output_arrives(form, guided):
    assert chat(structured_outputs=form).guided == guided


def test_a_schema_of_any_depth_is_passed_or_refused():
    schema: dict = {}
    for _ in range(100_000):
        schema = {"items": schema}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = refused(chat, response_format=wanted)
    assert (error.param, "nested too deeply" in error.message) == ("response_format", True)


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner]])
def test_what_a_template_is_given_is_not_nested_without_end(wrap):
    def translated(levels):
        given = 1
        for _ in range(levels - 1):
            given = wrap(given)
        body = ChatBody.model_validate({"messages": MESSAGES, "chat_template_kwargs": {"a": given}})
        return to_chat_generate(body, model="m", adapter=None, request_id="r")

    assert translated(64).prompt.template_kwargs
    for levels in (65, 900):
        with pytest.raises(PlatformError, match="more than 64 levels") as caught:
            translated(levels)
        assert caught.value.param == "chat_template_kwargs"
