"""What the runtime writes is what transformers' own `generate` writes, whoever else is writing."""

import asyncio
import random

import pytest

from rayserve_platform.core.messages import Details, Sampling, Stopping, StopReason

GREEDY = Sampling(temperature=0)
EVERYTHING = Details(generated_tokens=True, logprobs=True, ranks=True, top_n_tokens=3)
COMPANY = {
    "t5": "answers of any length",
    "bart": "answers of any length",
    "m2m100": "answers of equal length",
    "llama": "answers of any length",
    "mistral": "answers of any length",
    "gpt2": "answers of any length",
    "bloom": "answers of any length",
    "opt": "answers of any length",
    "mamba": "no two answers",
}
PROMPTS = [
    "The capital of France is",
    "Translate English to German: the house is",
    "A",
    "A naïve café owner wrote 12 lines — each one",
    "the last",
    "Madrid Paris Madrid Paris Madrid Paris Madrid",
]


def equal(chunk, expected):
    """Whether an answer is a reference's: tokens, log probabilities and text."""
    ids = [token.id for token in chunk.tokens]
    assert ids == expected.ids
    assert [t.logprob for t in chunk.tokens] == pytest.approx(expected.logprobs, abs=2e-4)
    assert chunk.text == expected.text
    assert chunk.generated_tokens == len(expected.ids)


@pytest.mark.parametrize("kind", COMPANY)
async def test_greedy_answers_are_those_of_generate(kind, directory, serve, reference):
    served = await serve(directory(kind))
    assert served.company == COMPANY[kind]
    for prompt in PROMPTS:
        chunk = await served.answer(
            prompt=prompt,
            sampling=GREEDY,
            stopping=Stopping(max_new_tokens=24),
            details=EVERYTHING,
        )
        equal(chunk, reference(kind).generate(prompt, do_sample=False, max_new_tokens=24))


@pytest.mark.parametrize("kind", COMPANY)
@pytest.mark.parametrize("seed", range(3))
async def test_answers_are_the_same_while_others_join_and_leave(
    kind, seed, directory, serve, reference
):
    served = await serve(directory(kind), max_batch_size=5, prefill_tokens=40)
    choice = random.Random(seed)

    async def one(number: int) -> None:
        prompt, length = choice.choice(PROMPTS), choice.randint(1, 40)
        await asyncio.sleep(choice.random() / 10)
        if number % 6 == 5:  # somebody goes away
            rules = Stopping(max_new_tokens=60, ignore_eos=True)
            async with served.stream(prompt=prompt, stopping=rules) as chunks:
                await anext(chunks)
            return
        chunk = await served.answer(
            prompt=prompt,
            sampling=GREEDY,
            stopping=Stopping(max_new_tokens=length),
            details=EVERYTHING,
            stream=number % 2 == 0,
        )
        equal(chunk, reference(kind).generate(prompt, do_sample=False, max_new_tokens=length))

    await asyncio.gather(*(one(number) for number in range(14)))


SAMPLINGS = [
    ({"temperature": 0.7}, {}),
    ({"top_k": 5, "temperature": 1.3}, {}),
    ({"top_p": 0.8}, {}),
    ({"min_p": 0.1}, {}),
    ({"typical_p": 0.6}, {}),
    ({"repetition_penalty": 1.4, "top_p": 0.9}, {}),
    (
        {"length_penalty": (3, 1.5)},
        {"exponential_decay_length_penalty": (3, 1.5)},
    ),
    ({"logit_bias": {40: 4.0, 50: -3.0}}, {"sequence_bias": {(40,): 4.0, (50,): -3.0}}),
]


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("names", SAMPLINGS)
async def test_sampled_answers_are_those_of_generate_after_the_same_seed(
    kind, names, directory, serve, reference
):
    import torch

    ours, theirs = names
    served = await serve(directory(kind))
    for seed in (1, 2**63):
        torch.manual_seed(seed)
        expected = reference(kind).generate(
            PROMPTS[0], do_sample=True, max_new_tokens=20, **{"top_k": 0} | (theirs or ours)
        )
        chunk = await served.answer(
            prompt=PROMPTS[0],
            sampling=Sampling(seed=seed, **ours),
            stopping=Stopping(max_new_tokens=20),
            details=EVERYTHING,
        )
        equal(chunk, expected)
        assert chunk.seed == seed


@pytest.mark.parametrize("kind", ["t5", "bart", "llama"])
async def test_penalties_hold_for_greedy_answers_too(kind, directory, serve, reference):
    served = await serve(directory(kind))
    chunk = await served.answer(
        prompt=PROMPTS[1],
        sampling=Sampling(temperature=0, repetition_penalty=1.6),
        stopping=Stopping(max_new_tokens=30, min_new_tokens=12),
        details=EVERYTHING,
    )
    expected = reference(kind).generate(
        PROMPTS[1], do_sample=False, max_new_tokens=30, min_new_tokens=12, repetition_penalty=1.6
    )
    equal(chunk, expected)


@pytest.mark.parametrize("kind", ["t5", "llama"])
async def test_a_seeded_sample_is_the_same_whatever_else_is_in_the_batch(kind, directory, serve):
    served = await serve(directory(kind))

    async def mine():
        return await served.answer(
            prompt=PROMPTS[3],
            sampling=Sampling(seed=7, temperature=1.2),
            stopping=Stopping(max_new_tokens=30, ignore_eos=True),
            details=Details(generated_tokens=True),
        )

    async def other(prompt):
        await served.answer(prompt=prompt, stopping=Stopping(max_new_tokens=20, ignore_eos=True))

    alone = await mine()
    crowded, *_ = await asyncio.gather(mine(), *map(other, PROMPTS))
    late = asyncio.gather(*map(other, PROMPTS))
    await served.until(len(PROMPTS))
    joined = await mine()
    await late
    assert alone.text == crowded.text == joined.text
    assert alone.tokens == crowded.tokens == joined.tokens


async def test_unseeded_samples_differ(directory, serve):
    served = await serve(directory("gpt2"))
    texts = {
        (await served.answer(prompt="A", stopping=Stopping(max_new_tokens=20))).text
        for _ in range(4)
    }
    assert len(texts) > 1


@pytest.mark.parametrize("kind", ["t5", "llama", "mamba", "m2m100"])
async def test_several_answers_to_a_prompt_draw_from_seeds_of_their_own(kind, directory, serve):
    served = await serve(directory(kind))
    asked = {"prompt": PROMPTS[0], "stopping": Stopping(max_new_tokens=12, ignore_eos=True)}
    three = await served.ask(n=3, sampling=Sampling(seed=5), **asked)
    singles = [await served.answer(sampling=Sampling(seed=5 + i), **asked) for i in range(3)]
    assert sorted(chunk.index for chunk in three) == [0, 1, 2]
    assert sum(chunk.prompt is not None for chunk in three) == 1
    by_index = sorted(three, key=lambda chunk: chunk.index)
    assert [chunk.text for chunk in by_index] == [chunk.text for chunk in singles]


@pytest.mark.parametrize("kind", ["t5", "llama"])
async def test_ranks_and_alternatives_are_the_models_own(kind, directory, serve, reference):
    served = await serve(directory(kind))
    chunk = await served.answer(
        prompt=PROMPTS[0],
        sampling=Sampling(seed=3, temperature=2.0, top_p=0.9),
        stopping=Stopping(max_new_tokens=10, ignore_eos=True),
        details=EVERYTHING,
    )
    assert {token.rank for token in chunk.tokens} != {1}
    for token in chunk.tokens:
        assert [t.rank for t in token.top] == [1, 2, 3]
        logprobs = [t.logprob for t in token.top]
        assert logprobs == sorted(logprobs, reverse=True)
        better = [t for t in token.top if t.logprob > token.logprob]
        assert len(better) == min(token.rank - 1, 3)
        pieces = reference(kind).tokenizer.convert_ids_to_tokens([t.id for t in token.top])
        assert [t.text for t in token.top] == [piece or "" for piece in pieces]


@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2", "mamba"])
async def test_prompt_tokens_are_described_by_the_models_own_distribution(
    kind, directory, serve, reference, monkeypatch
):
    import torch

    from rayserve_platform.runtimes.torch import network

    monkeypatch.setattr(network, "PIECE_TOKENS", 5)
    served = await serve(directory(kind))
    model, tokenizer = reference(kind).model, reference(kind).tokenizer
    prompt = PROMPTS[3]
    chunk = await served.answer(
        prompt=prompt,
        sampling=GREEDY,
        stopping=Stopping(max_new_tokens=4),
        details=Details(input_tokens=True, input_text=True, logprobs=True, ranks=True),
    )
    ids = tokenizer(prompt).input_ids
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    told = chunk.prompt
    assert told.text == prompt
    assert told.token_count == len(ids)
    assert [token.id for token in told.tokens] == ids
    assert (told.tokens[0].logprob, told.tokens[0].rank) == (None, None)
    for place, token in enumerate(told.tokens[1:]):
        assert token.logprob == pytest.approx(expected[place, token.id].item(), abs=2e-4)
        assert token.rank == int((expected[place] >= expected[place, token.id]).sum())
    assert chunk.text == reference(kind).generate(prompt, do_sample=False, max_new_tokens=4).text


async def test_a_prompt_for_an_encoder_has_tokens_without_probabilities(directory, serve):
    served = await serve(directory("t5"))
    chunk = await served.answer(
        prompt="the house",
        stopping=Stopping(max_new_tokens=1),
        details=Details(input_tokens=True, logprobs=True, ranks=True, top_n_tokens=2),
    )
    assert [token.text for token in chunk.prompt.tokens][-1] == "</s>"
    assert all(token.logprob is None and token.top == () for token in chunk.prompt.tokens)


async def test_the_models_own_generation_config_holds(directory, serve, reference, tmp_path):
    import json
    import shutil

    path = shutil.copytree(directory("bart"), tmp_path / "bart")
    config = json.loads((path / "generation_config.json").read_text())
    config |= {"forced_bos_token_id": 9, "no_repeat_ngram_size": 2, "forced_eos_token_id": 2}
    (path / "generation_config.json").write_text(json.dumps(config))
    served = await serve(path)
    chunk = await served.answer(
        prompt=PROMPTS[0],
        sampling=GREEDY,
        stopping=Stopping(max_new_tokens=16),
        details=EVERYTHING,
    )
    expected = reference("bart").generate(
        PROMPTS[0],
        do_sample=False,
        max_new_tokens=16,
        forced_bos_token_id=9,
        no_repeat_ngram_size=2,
        forced_eos_token_id=2,
    )
    equal(chunk, expected)
    assert chunk.tokens[0].id == 9
    assert chunk.stop.reason is StopReason.EOS
