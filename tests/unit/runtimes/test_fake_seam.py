"""The fake engine's other verbs, its failures, and what leaving a request does."""

import asyncio
import contextlib

import numpy as np
import pytest

from rayserve_platform.core.cards import Task
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Generate,
    Guided,
    Stopping,
    Tokenize,
)
from rayserve_platform.core.tensors import Infer


async def chunks_of(runtime, **fields) -> list[Chunk]:
    request = Generate(**{"model": "fake", "prompt": "Once", **fields})
    return [chunk async for chunks in runtime.generate(request) for chunk in chunks]


async def refusal(awaitable) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


@pytest.mark.parametrize("token_id", [-1, 0xD800, 0xDFFF, 0x110000, 2**63])
async def test_an_id_that_is_no_character_is_refused(make_fake, token_id):
    runtime = make_fake()
    for verb in (
        chunks_of(runtime, prompt=(token_id,)),
        runtime.detokenize(Detokenize(model="fake", ids=(token_id,))),
        runtime.embed(Embed(model="fake", inputs=((token_id,),))),
    ):
        assert (await refusal(verb)).code is Code.INVALID_ARGUMENT


async def test_leaving_a_stream_ends_the_request(make_fake):
    runtime = make_fake()
    request = Generate(model="fake", prompt="a", stream=True)
    async with contextlib.aclosing(runtime.generate(request)) as stream:
        await anext(stream)
        assert runtime.running == 1
    assert runtime.running == 0


async def test_cancelling_a_request_ends_it(make_fake, eventually):
    runtime = make_fake(first_token_s=600)
    task = asyncio.create_task(chunks_of(runtime))
    await eventually(lambda: runtime.running == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert runtime.running == 0


async def test_a_scripted_failure_comes_after_its_tokens(make_fake):
    runtime = make_fake(fail_after_tokens=2)
    got = []

    async def consume() -> None:
        async for chunks in runtime.generate(Generate(model="fake", prompt="a", stream=True)):
            got.extend(chunks)

    with pytest.raises(RuntimeError, match="scripted failure"):
        await consume()
    assert len(got) == 2
    assert runtime.running == 0


async def test_an_overloaded_engine_says_so_and_when_to_come_back(make_fake):
    runtime = make_fake(overloaded=True)
    for verb in (chunks_of(runtime), runtime.embed(Embed(model="fake", inputs=("a",)))):
        error = await refusal(verb)
        assert (error.code, error.retry_after_s) == (Code.RESOURCE_EXHAUSTED, 1)


async def test_what_it_cannot_do_it_refuses_by_name(make_fake):
    embeds, generates = make_fake(tasks=("embed",)), make_fake(tasks=("generate",))
    guided = Guided(kind="regex", value="a")
    for verb, words in (
        (chunks_of(embeds), "generate text"),
        (generates.embed(Embed(model="fake", inputs=("a",))), "compute embeddings"),
        (generates.infer(Infer(model="fake", inputs=())), "run inference on tensors"),
        (chunks_of(generates, guided=guided), "decode with a guide"),
    ):
        error = await refusal(verb)
        assert error.code is Code.UNIMPLEMENTED
        assert error.message == f"The fake runtime does not {words}."


async def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone(make_fake):
    inputs = ("a", "b", tuple(map(ord, "a")))
    found = await make_fake(dimension=5).embed(Embed(model="fake", inputs=inputs))
    assert (found.vectors.dtype, found.vectors.shape) == (np.float32, (3, 5))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(found.vectors[0], found.vectors[2])
    assert found.token_counts == (1, 1, 1)
    cut = await make_fake().embed(Embed(model="fake", inputs=("abc",), truncate_tokens=1))
    assert cut.token_counts == (1,)


async def test_tokens_are_characters_with_their_places(make_fake):
    runtime = make_fake()
    found = await runtime.tokenize(Tokenize(model="fake", prompt="héy", truncate_tokens=2))
    assert found.ids == (233, 121)
    assert found.texts == ("é", "y")
    assert found.offsets == ((1, 2), (2, 3))
    first = await runtime.tokenize(
        Tokenize(model="fake", prompt="héy", truncate_tokens=2, truncate_side="right")
    )
    assert (first.texts, first.offsets) == (("h", "é"), ((0, 1), (1, 2)))
    assert await runtime.detokenize(Detokenize(model="fake", ids=found.ids)) == "éy"


async def test_its_card_is_what_its_settings_say(make_fake):
    (card,) = await make_fake(
        id="m", aliases=("n",), max_model_len=9, dimension=3, tasks=("embed",)
    ).describe()
    assert (card.id, card.aliases, card.root, card.runtime) == ("m", ("n",), "m", "fake")
    assert (card.max_model_len, card.dimension, card.chat) == (9, 3, True)
    assert card.tasks == {Task.EMBED}
    assert card.native == frozenset()


async def test_it_keeps_the_last_requests_it_saw(make_fake):
    runtime = make_fake()
    for number in range(20):
        await chunks_of(runtime, prompt=f"{number}", stopping=Stopping(max_new_tokens=1))
    assert [request.prompt for request in runtime.seen] == [str(n) for n in range(4, 20)]
