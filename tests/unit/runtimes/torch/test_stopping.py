from dataclasses import replace

import pytest

from rayserve_platform.core.messages import Details, Sampling, Stopping, StopReason

GREEDY = Sampling(temperature=0)
TOKENS = Details(generated_tokens=True)
PROMPT = "The capital of France is"
KINDS = ["t5", "llama"]


async def free(served, count=24):
    """What the model writes where nothing stops it, token by token."""
    rules = Stopping(max_new_tokens=count, ignore_eos=True)
    asked = {"prompt": PROMPT, "sampling": GREEDY, "stopping": rules, "details": TOKENS}
    return await served.ask(stream=True, **asked)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_has_a_chunk_for_each_token_and_counts_up(kind, directory, serve):
    served = await serve(directory(kind))
    chunks = await free(served, 10)
    assert [chunk.generated_tokens for chunk in chunks] == list(range(1, 11))
    assert all(len(chunk.tokens) == 1 for chunk in chunks)
    assert [chunk.prompt is not None for chunk in chunks] == [True] + [False] * 9
    assert [chunk.stop is not None for chunk in chunks] == [False] * 9 + [True]
    whole = await served.ask(
        prompt=PROMPT,
        sampling=GREEDY,
        stopping=Stopping(max_new_tokens=10, ignore_eos=True),
        details=TOKENS,
    )
    assert len(whole) == 1
    assert whole[0].text == "".join(chunk.text for chunk in chunks)
    assert whole[0].tokens == tuple(token for chunk in chunks for token in chunk.tokens)


async def test_the_requests_own_limit_and_the_models_length_are_told_apart(directory, serve):
    served = await serve(directory("llama"), max_model_len=16)
    length = (await served.answer(prompt=PROMPT)).prompt.token_count
    room = 16 - length
    cases = {room - 1: StopReason.MAX_TOKENS, room: StopReason.MAX_TOKENS}
    cases |= {room + 1: StopReason.TOKEN_LIMIT, None: StopReason.TOKEN_LIMIT}
    for asked, reason in cases.items():
        chunk = await served.answer(
            prompt=PROMPT, stopping=Stopping(max_new_tokens=asked, ignore_eos=True)
        )
        assert chunk.stop.reason is reason
        assert chunk.generated_tokens == min(asked or room, room)


async def test_an_encoders_prompt_takes_no_room_from_the_answer(directory, serve):
    served = await serve(directory("t5"), max_model_len=20)
    count = (await served.runtime.tokenize(tokenize(PROMPT))).ids
    assert len(count) < 20
    chunk = await served.answer(prompt=PROMPT, stopping=Stopping(ignore_eos=True))
    assert (chunk.generated_tokens, chunk.stop.reason) == (20, StopReason.TOKEN_LIMIT)


def tokenize(text):
    from rayserve_platform.core.messages import Tokenize

    return Tokenize(model="m", prompt=text)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_token_ends_an_answer_and_is_no_text(kind, directory, serve):
    served = await serve(directory(kind))
    certain = Sampling(temperature=0, logit_bias={2: 100.0})
    chunk = await served.answer(prompt=PROMPT, sampling=certain, details=TOKENS)
    assert chunk.stop.reason is StopReason.EOS
    assert (chunk.stop.sequence, chunk.stop.token_id) == ("</s>", 2)
    assert (chunk.text, chunk.generated_tokens, chunk.tokens[0].id) == ("", 1, 2)
    kept = await served.answer(
        prompt=PROMPT,
        sampling=certain,
        stopping=Stopping(include_stop_sequence=True),
        skip_special_tokens=False,
    )
    assert kept.text == "</s>"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_token_waits_for_the_least_number_of_tokens(kind, directory, serve):
    served = await serve(directory(kind))
    chunk = await served.answer(
        prompt=PROMPT,
        sampling=Sampling(temperature=0, logit_bias={2: 100.0}),
        stopping=Stopping(min_new_tokens=5),
    )
    assert (chunk.generated_tokens, chunk.stop.reason) == (6, StopReason.EOS)


async def test_a_stop_token_ends_an_answer_by_its_id(directory, serve):
    served = await serve(directory("llama"))
    chunks = await free(served)
    token = chunks[6].tokens[0]
    first = next(i for i, chunk in enumerate(chunks) if chunk.tokens[0].id == token.id)
    asked = {"prompt": PROMPT, "sampling": GREEDY}
    chunk = await served.answer(stopping=Stopping(stop_token_ids=(token.id,)), **asked)
    assert chunk.stop.reason is StopReason.STOP_SEQUENCE
    assert (chunk.stop.sequence, chunk.stop.token_id) == (token.text, token.id)
    assert chunk.generated_tokens == first + 1
    later = await served.answer(
        stopping=Stopping(stop_token_ids=(token.id,), min_new_tokens=first + 3), **asked
    )
    assert later.generated_tokens > first + 3


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_stop_sequence_ends_an_answer_even_within_a_token(
    include, stream, directory, serve
):
    served = await serve(directory("llama"))
    text = "".join(chunk.text for chunk in await free(served))
    place = len(text) // 2
    sequence = text[place : place + 3]
    place = text.index(sequence)
    chunks = await served.ask(
        prompt=PROMPT,
        sampling=GREEDY,
        stopping=Stopping(
            stop_sequences=("never", sequence),
            include_stop_sequence=include,
            ignore_eos=True,
            max_new_tokens=24,
        ),
        stream=stream,
    )
    assert "".join(c.text for c in chunks) == text[: place + (3 if include else 0)]
    assert chunks[-1].stop.reason is StopReason.STOP_SEQUENCE
    assert chunks[-1].stop.sequence == sequence


async def test_a_stop_sequence_beats_the_limit_on_the_last_token(directory, serve):
    served = await serve(directory("llama"))
    texts = [chunk.text for chunk in await free(served)]
    # The first token whose text was not there before, and ends amid no character.
    count = next(i for i, t in enumerate(texts) if i > 2 and t and t not in "".join(texts[:i]))
    chunk = await served.answer(
        prompt=PROMPT,
        sampling=GREEDY,
        stopping=Stopping(
            max_new_tokens=count + 1, stop_sequences=(texts[count],), ignore_eos=True
        ),
    )
    assert chunk.generated_tokens == count + 1
    assert chunk.stop.reason is StopReason.STOP_SEQUENCE


async def test_a_stop_sequence_waits_for_the_least_number_of_tokens(directory, serve):
    served = await serve(directory("llama"))
    texts = [chunk.text for chunk in await free(served)]
    sequence = next(text for text in texts if text.strip("\ufffd"))
    first = texts.index(sequence) + 1
    asked = {"prompt": PROMPT, "sampling": GREEDY}
    rules = Stopping(max_new_tokens=24, ignore_eos=True, stop_sequences=(sequence,))
    chunk = await served.answer(stopping=rules, **asked)
    assert chunk.generated_tokens == first
    # The token that would have been the last does not stop any more, nor do those before it.
    later = await served.answer(stopping=replace(rules, min_new_tokens=first), **asked)
    assert later.generated_tokens > first
    assert later.text.startswith("".join(texts[:first]))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_time_limit_ends_an_answer_with_what_there_is(stream, directory, serve):
    served = await serve(directory("llama"), max_model_len=128)
    rules = Stopping(time_limit_s=0.001, ignore_eos=True)
    chunk = await served.answer(prompt="A", stopping=rules, stream=stream)
    assert chunk.stop.reason is StopReason.TIME_LIMIT
    assert chunk.generated_tokens < 100
    assert chunk.prompt.token_count == 1


async def test_a_time_limit_holds_in_the_queue(directory, serve):
    served = await serve(directory("llama"), max_batch_size=1)
    async with served.stream(prompt="A", stopping=Stopping(ignore_eos=True)) as chunks:
        await anext(chunks)
        late = await served.ask(prompt="A", n=1, stopping=Stopping(time_limit_s=0.0))
    assert [(c.stop.reason, c.generated_tokens) for c in late] == [(StopReason.TIME_LIMIT, 0)]
    assert late[0].prompt.token_count == 1
