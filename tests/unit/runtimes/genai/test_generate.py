"""What the runtime writes is what the library's plain pipeline writes, alone and in a crowd."""

import asyncio

import pytest

from rayserve_platform.core.messages import (
    Chat,
    Details,
    Sampling,
    Stopping,
    StopReason,
    Turn,
)

pytestmark = [pytest.mark.llm, pytest.mark.asyncio(loop_scope="session")]

GREEDY = Sampling(temperature=0)
EVERYTHING = Details(generated_tokens=True, logprobs=True)
PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a",
    "def fibonacci(n):",
    "The three primary colours are red, yellow and",
]
QUESTION = Chat(turns=(Turn(role="user", content="What is the capital of France?"),))


async def test_greedy_answers_are_the_plain_pipelines_alone_and_together(served, plain):
    lengths = [24, 7, 31, 12]
    expected = [
        plain.write(prompt, max_new_tokens=length)
        for prompt, length in zip(PROMPTS, lengths, strict=True)
    ]

    async def one(place):
        chunk = await served.answer(
            prompt=PROMPTS[place],
            sampling=GREEDY,
            stopping=Stopping(max_new_tokens=lengths[place]),
            details=EVERYTHING,
        )
        assert ([token.id for token in chunk.tokens], chunk.text) == expected[place]
        assert all(token.logprob <= 0 for token in chunk.tokens)
        assert chunk.generated_tokens == len(chunk.tokens)

    for place in range(len(PROMPTS)):
        await one(place)
    await asyncio.gather(*map(one, range(len(PROMPTS))))


async def test_a_conversation_is_rendered_by_the_models_template_and_ends_by_itself(served):
    chunk = await served.answer(prompt=QUESTION, sampling=GREEDY)
    # What transformers writes with these weights in float32, and the README promises.
    assert chunk.text == "The capital of France is Paris."
    assert chunk.stop.reason is StopReason.EOS
    assert chunk.stop.sequence == "<|im_end|>"


async def test_a_streams_pieces_are_the_whole_answer(served):
    how = {"prompt": PROMPTS[1], "sampling": GREEDY, "stopping": Stopping(max_new_tokens=20)}
    whole = await served.answer(**how)
    chunks = await served.ask(**how, stream=True)
    assert len(chunks) == 20
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.generated_tokens for chunk in chunks] == list(range(1, 21))
    assert [chunk.prompt is not None for chunk in chunks] == [True] + [False] * 19
    assert [chunk.stop is not None for chunk in chunks] == [False] * 19 + [True]


@pytest.mark.parametrize("include", [False, True])
async def test_a_stop_sequence_ends_the_text(served, plain, include):
    _, text = plain.write(PROMPTS[1], max_new_tokens=40)
    before, found, _ = text.partition(" to ")
    assert found
    chunks = await served.ask(
        prompt=PROMPTS[1],
        sampling=GREEDY,
        stopping=Stopping(
            max_new_tokens=40, stop_sequences=("zzz", " to "), include_stop_sequence=include
        ),
        stream=True,
    )
    assert "".join(chunk.text for chunk in chunks) == before + (found if include else "")
    assert chunks[-1].stop.reason is StopReason.STOP_SEQUENCE
    assert chunks[-1].stop.sequence == " to "


async def test_a_stop_token_ends_the_text_and_is_not_in_it(served, plain):
    ids, _ = plain.write(PROMPTS[1], max_new_tokens=8)
    chunk = await served.answer(
        prompt=PROMPTS[1],
        sampling=GREEDY,
        stopping=Stopping(max_new_tokens=8, stop_token_ids=(ids[4],)),
        details=Details(generated_tokens=True),
    )
    end = ids.index(ids[4]) + 1
    assert [token.id for token in chunk.tokens] == ids[:end]
    assert chunk.text == plain.tokenizer.decode(ids[: end - 1])
    assert (chunk.stop.reason, chunk.stop.token_id) == (StopReason.STOP_SEQUENCE, ids[4])


@pytest.mark.parametrize(
    ("stopping", "reason", "count"),
    [
        (Stopping(max_new_tokens=5), StopReason.MAX_TOKENS, 5),
        (Stopping(max_new_tokens=60, ignore_eos=True), StopReason.MAX_TOKENS, 60),
        (Stopping(max_new_tokens=60, min_new_tokens=60), StopReason.MAX_TOKENS, 60),
    ],
)
async def test_an_answer_has_the_tokens_it_is_to_have(served, stopping, reason, count):
    chunk = await served.answer(prompt=QUESTION, sampling=GREEDY, stopping=stopping)
    assert (chunk.stop.reason, chunk.generated_tokens) == (reason, count)


async def test_an_answer_ends_where_the_models_length_does(served):
    prompt = tuple([28] * 2040)
    chunk = await served.answer(
        prompt=prompt, sampling=GREEDY, stopping=Stopping(max_new_tokens=99, ignore_eos=True)
    )
    assert (chunk.stop.reason, chunk.generated_tokens) == (StopReason.TOKEN_LIMIT, 8)


async def test_time_ends_an_answer_with_what_it_has(served):
    chunk = await served.answer(
        prompt=PROMPTS[1], stopping=Stopping(time_limit_s=0.3, ignore_eos=True)
    )
    assert chunk.stop.reason is StopReason.TIME_LIMIT


async def test_a_seed_repeats_an_answer_in_any_company(served):
    def draw(seed):
        return served.answer(
            prompt=PROMPTS[1],
            sampling=Sampling(seed=seed, temperature=0.9, top_k=40, top_p=0.95, min_p=0.01),
            stopping=Stopping(max_new_tokens=12),
        )

    seeds = range(40, 44)
    alone = [await draw(seed) for seed in seeds]
    together = await asyncio.gather(*map(draw, seeds))
    assert [chunk.seed for chunk in alone] == list(seeds)
    assert [chunk.text for chunk in alone] == [chunk.text for chunk in together]
    assert len({chunk.text for chunk in alone}) == len(seeds)


async def test_prompts_that_begin_alike_leave_each_other_alone(served, plain):
    def ask(length):
        return served.answer(
            prompt=PROMPTS[1], sampling=GREEDY, stopping=Stopping(max_new_tokens=length)
        )

    _, expected = plain.write(PROMPTS[1], max_new_tokens=16)
    await ask(1)
    for chunk in await asyncio.gather(*(ask(16) for _ in range(3))):
        assert chunk.text == expected


async def test_several_answers_are_several(served):
    chunks = await served.ask(
        prompt=PROMPTS[1], n=3, sampling=Sampling(seed=5), stopping=Stopping(max_new_tokens=12)
    )
    assert sorted(chunk.index for chunk in chunks) == [0, 1, 2]
    assert len({chunk.text for chunk in chunks}) == 3
    assert [chunk.prompt is not None for chunk in chunks] == [True, False, False]


@pytest.mark.parametrize(
    ("penalty", "sampling"),
    [
        ("repetition_penalty", Sampling(temperature=0, repetition_penalty=1.5)),
        ("frequency_penalty", Sampling(temperature=0, frequency_penalty=1.5)),
        ("presence_penalty", Sampling(temperature=0, presence_penalty=1.5)),
    ],
)
async def test_penalties_are_the_librarys(served, plain, penalty, sampling):
    ids, text = plain.write(PROMPTS[1], max_new_tokens=24, **{penalty: 1.5})
    assert text != plain.write(PROMPTS[1], max_new_tokens=24)[1]
    chunk = await served.answer(
        prompt=PROMPTS[1],
        sampling=sampling,
        stopping=Stopping(max_new_tokens=24),
        details=Details(generated_tokens=True),
    )
    assert ([token.id for token in chunk.tokens], chunk.text) == (ids, text)


async def test_the_likeliest_token_is_known_for_what_it_is(served):
    chunk = await served.answer(
        prompt=PROMPTS[0],
        sampling=GREEDY,
        stopping=Stopping(max_new_tokens=3),
        details=Details(generated_tokens=True, logprobs=True, ranks=True, top_n_tokens=1),
    )
    for token in chunk.tokens:
        assert token.rank == 1
        [top] = token.top
        assert (top.id, top.logprob) == (token.id, token.logprob)


async def test_input_is_told_where_it_is_asked_for(served):
    chunk = await served.answer(
        prompt=PROMPTS[0],
        truncate_prompt_tokens=2,
        stopping=Stopping(max_new_tokens=1),
        details=Details(input_text=True, input_tokens=True),
    )
    assert chunk.prompt.text == PROMPTS[0]
    assert [token.text for token in chunk.prompt.tokens] == ["ĠFrance", "Ġis"]
    assert chunk.prompt.token_count == 2


async def test_an_answer_goes_on_with_the_last_message(served):
    turns = (*QUESTION.turns, Turn(role="assistant", content="The capital of France is"))
    chunk = await served.answer(
        prompt=Chat(turns=turns, add_generation_prompt=False, continue_final_message=True),
        sampling=GREEDY,
        stopping=Stopping(max_new_tokens=2),
    )
    assert chunk.text.startswith(" Paris")
