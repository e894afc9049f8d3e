import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from rayserve_platform.core.cards import Task
from rayserve_platform.core.errors import Code, PlatformError, PromptTooLong
from rayserve_platform.core.messages import (
    Chat,
    Details,
    Detokenize,
    Guided,
    Sampling,
    Stopping,
    Tokenize,
    Turn,
)

GREEDY = Sampling(temperature=0)


async def refusal(served, **request):
    """The error that a request is refused with."""
    with pytest.raises(PlatformError) as caught:
        await served.ask(**{"prompt": "A"} | request)
    assert served.runtime.running == 0
    return caught.value


async def test_the_card_says_what_is_served(directory, serve):
    (card,) = await (await serve(directory("t5"))).runtime.describe()
    assert (card.id, card.runtime, card.tasks) == ("m", "torch", {Task.GENERATE})
    assert (card.encoder_decoder, card.chat, card.max_model_len) == (True, False, 2048)
    assert card.size_bytes > 10_000
    (card,) = await (await serve(directory("llama"))).runtime.describe()
    assert (card.encoder_decoder, card.max_model_len) == (False, 128)


@pytest.mark.parametrize(
    ("field", "value", "range_"),
    [
        ("temperature", -0.1, ">= 0 and <= 100, got -0.1"),
        ("temperature", float("nan"), ">= 0 and <= 100, got nan"),
        ("top_k", -2, ">= -1, got -2"),
        ("top_p", 0.0, "> 0 and <= 1, got 0.0"),
        ("top_p", 1.1, "> 0 and <= 1, got 1.1"),
        ("min_p", 2.0, ">= 0 and <= 1, got 2.0"),
        ("typical_p", 0.0, "> 0 and <= 1, got 0.0"),
        ("repetition_penalty", 0.0, ">= 0.01 and <= 100, got 0.0"),
        ("frequency_penalty", 3.0, ">= -2 and <= 2, got 3.0"),
        ("presence_penalty", -3.0, ">= -2 and <= 2, got -3.0"),
        ("logit_bias", {320: 1.0}, "token ids must be >= 0 and < 320"),
        ("temperature", float("inf"), ">= 0 and <= 100, got inf"),
        ("logit_bias", {3: 101.0}, "values must be >= -100 and <= 100, got 101.0"),
        ("length_penalty", (1, 0.5), "must start at >= 0 and have a factor >= 1"),
    ],
)
async def test_a_value_out_of_range_is_refused_by_its_name(field, value, range_, directory, serve):
    error = await refusal(await serve(directory("llama")), sampling=Sampling(**{field: value}))
    assert (error.code, error.param) == (Code.INVALID_ARGUMENT, field)
    assert error.message.startswith(f"'{field}' ")
    assert range_ in error.message


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"stopping": Stopping(max_new_tokens=0)}, "max_new_tokens"),
        ({"stopping": Stopping(max_new_tokens=2, min_new_tokens=3)}, "min_new_tokens"),
        ({"stopping": Stopping(stop_token_ids=(-1,))}, "stop_token_ids"),
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": (320,)}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"adapter": "lora"}, "adapter_id"),
        ({"prompt": Chat(turns=(Turn(role="user", content="hi"),))}, "messages"),
    ],
)
async def test_what_makes_no_sense_is_refused(request_, param, directory, serve):
    error = await refusal(await serve(directory("llama")), **request_)
    assert (error.code, error.param) == (Code.INVALID_ARGUMENT, param)


async def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(directory, serve):
    served = await serve(directory("llama"), max_model_len=8)
    error = await refusal(served, prompt=(5,) * 8)
    assert isinstance(error, PromptTooLong)
    assert error.message == (
        "This model's maximum context length is 8 tokens, but the prompt has 8."
    )
    error = await refusal(served, prompt=(5,) * 6, stopping=Stopping(min_new_tokens=3))
    assert "has 6 and 3 new tokens are demanded" in error.message
    assert (await served.answer(prompt=(5,) * 7, stopping=Stopping(ignore_eos=True))).stop
    encoder = await serve(directory("t5"), max_model_len=8)
    assert "has 9" in (await refusal(encoder, prompt=(5,) * 9)).message
    assert (await encoder.answer(prompt=(5,) * 8)).stop


async def test_truncation_keeps_the_end_of_a_prompt(directory, serve):
    served = await serve(directory("llama"))
    chunk = await served.answer(
        prompt=(5, 6, 7, 8),
        truncate_prompt_tokens=2,
        stopping=Stopping(max_new_tokens=1),
        details=Details(input_tokens=True),
    )
    assert [token.id for token in chunk.prompt.tokens] == [7, 8]


EXTREME = [0.0, 1e-320, 1e-30, 0.5, 1.0, 2.0, 1e30, 1.7e308]


@pytest.mark.parametrize("seed", range(40))
async def test_extreme_values_are_refused_or_answered(seed, directory, serve):
    choice = random.Random(seed)
    served = await serve(directory(choice.choice(["t5", "gpt2"])))
    names = ["temperature", "top_p", "min_p", "typical_p", "repetition_penalty"]
    values: dict[str, Any] = {name: choice.choice([None, *EXTREME]) for name in names}
    sampling = Sampling(
        **values,
        seed=seed,
        top_k=choice.choice([None, 0, 1, 10**9]),
        frequency_penalty=choice.choice([None, -2.0, 2.0]),
        length_penalty=choice.choice([None, (0, 1e300), (3, 10.0), (10**9, 1.0)]),
        logit_bias=choice.choice([None, {2: 100.0, 3: -100.0}]),
    )
    stopping = Stopping(
        max_new_tokens=40,
        min_new_tokens=choice.choice([0, 30]),
        ignore_eos=choice.choice([True, False]),
    )
    for one in (sampling, replace(sampling, temperature=0.0)):
        asked = served.answer(prompt="A", sampling=one, stopping=stopping)
        found: Any = (await asyncio.gather(asked, return_exceptions=True))[0]
        if isinstance(found, PlatformError):
            assert found.code is Code.INVALID_ARGUMENT
        else:
            assert found.stop is not None
            assert found.generated_tokens >= stopping.min_new_tokens


async def test_tokens_go_there_and_back(directory, serve, reference):
    served = await serve(directory("llama"))
    text = "naïve café"
    tokens = await served.runtime.tokenize(Tokenize(model="m", prompt=text))
    expected = reference("llama").tokenizer(text, return_offsets_mapping=True)
    assert list(tokens.ids) == expected.input_ids
    assert list(tokens.offsets) == expected.offset_mapping
    assert list(tokens.texts) == reference("llama").tokenizer.convert_ids_to_tokens(tokens.ids)
    assert await served.runtime.detokenize(Detokenize(model="m", ids=tokens.ids)) == text
    last = await served.runtime.tokenize(Tokenize(model="m", prompt=text, truncate_tokens=2))
    assert (last.ids, last.offsets) == (tokens.ids[-2:], tokens.offsets[-2:])
    first = await served.runtime.tokenize(
        Tokenize(model="m", prompt=text, truncate_tokens=2, truncate_side="right")
    )
    assert (first.ids, first.offsets) == (tokens.ids[:2], tokens.offsets[:2])
    with pytest.raises(PlatformError, match="no adapter store"):
        await served.runtime.tokenize(Tokenize(model="m", prompt=text, adapter="x"))
    with pytest.raises(PlatformError, match="vocabulary of 320"):
        await served.runtime.detokenize(Detokenize(model="m", ids=(320,)))


async def test_presence_and_frequency_lower_what_the_answer_has(directory, serve):
    served = await serve(directory("gpt2"))

    async def ids(**sampling):
        chunk = await served.answer(
            prompt="A",
            sampling=Sampling(temperature=0, logit_bias={40: 9.0, 41: 8.5}, **sampling),
            stopping=Stopping(max_new_tokens=6, ignore_eos=True),
            details=Details(generated_tokens=True),
        )
        return [token.id for token in chunk.tokens]

    plain = await ids()
    assert len(set(plain)) < len(set(await ids(presence_penalty=2.0, frequency_penalty=2.0)))


@pytest.mark.parametrize("kind", ["t5", "llama"])
async def test_a_guided_answer_matches_its_guide(kind, directory, serve):
    import json
    import re

    served = await serve(directory(kind))

    async def text(**guided):
        chunk = await served.answer(
            prompt="A",
            guided=Guided(**guided),
            sampling=Sampling(seed=1),
            stopping=Stopping(max_new_tokens=100),
        )
        assert chunk.stop.reason == "eos"
        return chunk.text

    assert await text(kind="choice", value=("Paris", "Madrid")) in {"Paris", "Madrid"}
    assert re.fullmatch("[ains]{2,4}", await text(kind="regex", value="[ains]{2,4}"))
    assert await text(kind="grammar", value='root ::= "ain" "s"') == "ains"
    schema = json.dumps({"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3})
    if kind == "llama":  # the other vocabulary has no brackets
        assert isinstance(json.loads(await text(kind="json_schema", value=schema)), list)
        await served.answer(
            prompt="A", guided=Guided(kind="json"), stopping=Stopping(max_new_tokens=5)
        )


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("json_schema", '{"type": "nope"}', 'Unsupported type "nope"'),
        ("json_schema", "{", "Failed to parse JSON"),
        ("regex", "(a", "parenthesis is not closed"),
        ("grammar", "root := a", "Unexpected character"),
        ("choice", (), "nothing to choose from"),
    ],
)
async def test_a_guide_that_cannot_be_read_is_refused_with_the_reason(
    kind, value, words, directory, serve
):
    served = await serve(directory("llama"))
    error = await refusal(served, guided=Guided(kind=kind, value=value))
    assert (error.code, error.param) == (Code.INVALID_ARGUMENT, "guided")
    assert words in error.message
    assert ".cc" not in error.message


async def test_a_guide_that_the_vocabulary_cannot_write_is_refused(directory, serve):
    served = await serve(directory("t5"))
    error = await refusal(served, guided=Guided(kind="choice", value=("☃", "☂")))
    assert (error.code, error.param) == (Code.INVALID_ARGUMENT, "guided")
    assert "vocabulary can't write" in error.message


async def test_guides_are_refused_by_name_where_xgrammar_is_missing(directory, serve, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    served = await serve(directory("llama"))
    error = await refusal(served, guided=Guided(kind="json"))
    assert (error.code, error.param) == (Code.UNIMPLEMENTED, "guided")
    assert "xgrammar" in error.message
