"""Guides, what is refused, overload, and clients that leave."""

import asyncio
import contextlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from rayserve_platform.core.errors import Code, PlatformError, PromptTooLong
from rayserve_platform.core.messages import (
    Chat,
    Details,
    Detokenize,
    Guided,
    Sampling,
    Stopping,
    StopReason,
    Tokenize,
    Tokens,
    Turn,
)
from rayserve_platform.formats.source import resolve
from tests.unit.runtimes.genai.conftest import LENGTH, PLACES, SOURCE, WAITING

pytestmark = [pytest.mark.llm, pytest.mark.asyncio(loop_scope="session")]

ASKED = Chat(turns=(Turn(role="user", content="Name a person and an age."),))
SCHEMA = {
    "type": "object",
    "required": ["name", "age"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"enum": [30, 40]}},
}
REFERENCES = json.dumps(
    {
        "$ref": "#/$defs/a0",
        "$defs": {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(5_000)} | {"a5000": {}},
    }
)
"""Each of its levels takes some of the stack."""
LONG = Stopping(max_new_tokens=1500, ignore_eos=True)


def _is_person(text):
    return set(json.loads(text)) == {"name", "age"}


@pytest.mark.parametrize(
    ("guided", "fits"),
    [
        (Guided(kind="json_schema", value=json.dumps(SCHEMA)), _is_person),
        (Guided(kind="regex", value="[a-c]{3}-[0-9]{2}"), re.compile(r"[a-c]{3}-\d\d").fullmatch),
        (Guided(kind="choice", value=('say "yes"', "né")), {'say "yes"', "né"}.__contains__),
        (Guided(kind="choice", value=("Mädchen", "Größe")), {"Mädchen", "Größe"}.__contains__),
        (Guided(kind="choice", value=("a\x01b",)), {"a\x01b"}.__contains__),
        (Guided(kind="grammar", value='root ::= "\\"Mädchen"'), {'"Mädchen'}.__contains__),
        (Guided(kind="regex", value=r"\x41b"), {"Ab"}.__contains__),
        (Guided(kind="grammar", value='root ::= "x" ("y" | "z")'), {"xy", "xz"}.__contains__),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
async def test_a_guided_answer_fits_its_guide(served, guided, fits):
    chunk = await served.answer(
        prompt=ASKED,
        guided=guided,
        # At random this model writes blanks without end, which JSON allows.
        sampling=Sampling(temperature=0 if guided.kind == "json_schema" else 1, seed=1),
        stopping=Stopping(max_new_tokens=64, min_new_tokens=40),
    )
    assert fits(chunk.text), chunk.text


async def test_json_is_an_object_as_far_as_it_goes(served):
    chunk = await served.answer(
        prompt=ASKED, guided=Guided(kind="json"), stopping=Stopping(max_new_tokens=4)
    )
    assert chunk.text.lstrip().startswith("{")


@pytest.mark.parametrize(
    "guided",
    [
        Guided(kind="regex", value="(["),
        Guided(kind="grammar", value="root ::= nothing"),
        Guided(kind="grammar", value="?"),
        Guided(kind="json_schema", value="{"),
        Guided(kind="json_schema", value='{"type": "nonsense"}'),
        Guided(kind="json_schema", value='{"a":' * 100 + "1" + "}" * 100),
        Guided(kind="choice", value=()),
        Guided(kind="choice", value=("",)),
        Guided(kind="regex", value="a" * 300_000),
        Guided(kind="grammar", value="root ::= root"),
        Guided(kind="regex", value="(" * 20_000 + "a" + ")" * 20_000),
        Guided(kind="choice", value=("a\0b",)),
        Guided(kind="json_schema", value=REFERENCES),
    ],
    ids=lambda guided: f"{guided.kind}-{guided.value[:12]}",
)
async def test_a_broken_guide_is_refused_and_harms_nobody(served, guided):
    async with served.stream(prompt=ASKED, stopping=Stopping(max_new_tokens=20)) as beside:
        await anext(beside)
        with pytest.raises(PlatformError, match="guided") as caught:
            await served.ask(prompt=ASKED, guided=guided, stopping=Stopping(max_new_tokens=4))
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert [chunk async for chunks in beside for chunk in chunks][-1].stop is not None


@pytest.mark.parametrize(
    ("guided", "reason"),
    [
        (Guided(kind="regex", value="(["), r"Regex parsing error at position \d+: [\w '\[]+"),
        (Guided(kind="grammar", value="root ::= a"), r"EBNF parser error at line 1, [\w :,\"]+"),
        (Guided(kind="json_schema", value='{"type": "nonsense"}'), "it is not valid"),
        (Guided(kind="json_schema", value='{"$ref": "#/x"}'), "it is not valid"),
        (Guided(kind="regex", value="a{99999999999999999999}"), "it is not valid"),
    ],
)
async def test_nothing_of_the_library_but_a_place_in_the_guide_is_told(served, guided, reason):
    with pytest.raises(PlatformError) as caught:
        await served.ask(prompt="Hi", guided=guided)
    said = f"The {guided.kind.replace('_', ' ')} of 'guided' can't be used: "
    assert re.fullmatch(re.escape(said) + reason + r"\.", caught.value.message)


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("typical_p", {"sampling": Sampling(typical_p=0.5)}),
        ("length_penalty", {"sampling": Sampling(length_penalty=(2, 1.5))}),
        ("logit_bias", {"sampling": Sampling(logit_bias={5: 1.0})}),
        ("top_n_tokens", {"details": Details(generated_tokens=True, top_n_tokens=2)}),
        ("top_n_tokens", {"details": Details(generated_tokens=True, top_n_tokens=1)}),
        ("ranks", {"details": Details(generated_tokens=True, ranks=True)}),
        ("input_tokens", {"details": Details(input_tokens=True, logprobs=True)}),
    ],
)
async def test_what_the_library_cant_do_is_refused_by_name(served, name, request_):
    with pytest.raises(PlatformError, match=f"'{name}'") as caught:
        await served.ask(prompt="Hi", **request_)
    assert (caught.value.code, caught.value.param) == (Code.UNIMPLEMENTED, name)


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("temperature", {"sampling": Sampling(temperature=-1)}),
        ("temperature", {"sampling": Sampling(temperature=float("nan"))}),
        ("top_p", {"sampling": Sampling(top_p=0)}),
        ("top_k", {"sampling": Sampling(top_k=-2)}),
        ("repetition_penalty", {"sampling": Sampling(repetition_penalty=0)}),
        ("presence_penalty", {"sampling": Sampling(presence_penalty=3)}),
        ("n", {"n": PLACES + 1}),
        ("n", {"n": 0}),
        ("max_new_tokens", {"stopping": Stopping(max_new_tokens=0)}),
        ("min_new_tokens", {"stopping": Stopping(max_new_tokens=1, min_new_tokens=2)}),
        ("stop_token_ids", {"stopping": Stopping(stop_token_ids=(10**9,))}),
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": "\ud800"}),
        ("prompt", {"prompt": (10**9,)}),
        ("adapter_id", {"adapter": "a"}),
        ("messages", {"prompt": Chat(turns=ASKED.turns, template="{{ raise_exception('no') }}")}),
    ],
)
async def test_values_that_mean_nothing_are_refused_by_name(served, name, request_):
    with pytest.raises(PlatformError) as caught:
        await served.ask(**{"prompt": "Hi", **request_})
    assert (caught.value.code, caught.value.param) == (Code.INVALID_ARGUMENT, name)


@pytest.mark.parametrize("prompt", [tuple([28] * LENGTH), "word " * LENGTH, "x" * 30_000_000])
async def test_a_prompt_without_room_for_an_answer_is_refused(served, prompt):
    with pytest.raises(PromptTooLong) as caught:
        await served.ask(prompt=prompt)
    assert caught.value.limit == LENGTH


async def test_overload_is_told_and_those_who_leave_make_room(served):
    async with contextlib.AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(served.stream(prompt="Once", stopping=LONG))
            for _ in range(PLACES + WAITING)
        ]
        asking = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.gather(*asking[:PLACES])
        with pytest.raises(PlatformError) as caught:
            await served.ask(prompt="Hi")
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert caught.value.retry_after_s
        # A waiting one that is left is not begun, and the others' places are free at once.
        for task in asking[PLACES:]:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    async with asyncio.timeout(20):
        chunks = await asyncio.gather(
            *(
                served.answer(prompt="Hi", stopping=Stopping(max_new_tokens=2))
                for _ in range(PLACES)
            )
        )
    assert [chunk.generated_tokens for chunk in chunks] == [2] * PLACES


async def test_a_long_texts_tokens_are_all_there(served):
    from tokenizers import Tokenizer

    text = "".join(f" w{i}" for i in range(4000))
    theirs = Tokenizer.from_file(str(resolve(SOURCE) / "tokenizer.json")).encode(text).ids
    assert len(theirs) > 2 * 8192
    assert list((await served.runtime.tokenize(Tokenize(model="m", prompt=text))).ids) == theirs
    last = Tokenize(model="m", prompt=text, truncate_tokens=9000)
    assert list((await served.runtime.tokenize(last)).ids) == theirs[-9000:]
    first = replace(last, truncate_side="right")
    assert list((await served.runtime.tokenize(first)).ids) == theirs[:9000]
    chunk = await served.answer(
        prompt=text,
        truncate_prompt_tokens=6,
        stopping=Stopping(max_new_tokens=1),
        details=Details(input_tokens=True),
    )
    assert [token.id for token in chunk.prompt.tokens] == theirs[-6:]


async def test_a_text_beyond_all_measure_is_refused(served):
    with pytest.raises(PlatformError, match="at most 4194304") as caught:
        await served.runtime.tokenize(Tokenize(model="m", prompt="word " * 2**20))
    assert (caught.value.code, caught.value.param) == (Code.INVALID_ARGUMENT, "prompt")


async def test_too_many_texts_at_once_are_overload(served):
    asked = [
        served.runtime.tokenize(Tokenize(model="m", prompt="Hi " * 9000))
        for _ in range(WAITING + 1)
    ]
    *found, last = await asyncio.gather(*asked, return_exceptions=True)
    assert [len(tokens.ids) for tokens in found if isinstance(tokens, Tokens)] == [9001] * WAITING
    assert isinstance(last, PlatformError)
    assert (last.code, last.retry_after_s) == (Code.RESOURCE_EXHAUSTED, 1)


async def test_what_is_nested_too_deeply_to_be_handed_on_is_refused(served):
    deep: dict[str, Any] = {}
    for _ in range(600):
        deep = {"a": deep}
    with pytest.raises(PlatformError, match="nested too deeply") as caught:
        await served.ask(prompt=Chat(turns=ASKED.turns, template_kwargs=deep))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert not served.runtime._process._pending


async def test_time_runs_while_a_guide_waits(served):
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(300)}}
    asked = [
        served.answer(
            prompt=ASKED,
            guided=Guided(kind="json_schema", value=json.dumps(schema | {"title": str(i)})),
            stopping=Stopping(time_limit_s=0.1, ignore_eos=True),
        )
        for i in range(2)
    ]
    for chunk in await asyncio.gather(*asked):
        assert chunk.stop.reason is StopReason.TIME_LIMIT


@pytest.mark.parametrize("text", ["Hello world", "naïve — 日本 🙂", ""])
async def test_tokens_are_those_of_the_models_tokenizer(served, text):
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(resolve(SOURCE) / "tokenizer.json")).encode(text)
    ours = await served.runtime.tokenize(Tokenize(model="m", prompt=text))
    assert list(ours.ids) == theirs.ids
    assert list(ours.texts) == theirs.tokens
    assert list(ours.offsets) == theirs.offsets
    assert await served.runtime.detokenize(Detokenize(model="m", ids=ours.ids)) == text


async def test_the_card_says_what_is_served(served):
    [card] = await served.runtime.describe()
    assert (card.id, card.runtime, card.max_model_len, card.chat) == ("m", "genai", LENGTH, True)
    assert card.size_bytes > 50_000_000
    await served.runtime.check_health()
