"""The fake engine keeps the seam's promises exactly, so that tests of protocols mean something."""

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chat,
    Chunk,
    Details,
    Generate,
    Sampling,
    Stop,
    Stopping,
    StopReason,
    Turn,
)
from rayserve_platform.runtimes.fake import EOS_ID, SENTENCE

LONG = SENTENCE * 3


async def chunks_of(runtime, **fields) -> list[Chunk]:
    request = Generate(**{"model": "fake", "prompt": "Once", **fields})
    return [chunk async for chunks in runtime.generate(request) for chunk in chunks]


async def whole(runtime, **fields) -> Chunk:
    (chunk,) = await chunks_of(runtime, **fields)
    return chunk


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


async def test_the_same_prompt_and_seed_give_the_same_text_in_every_replica(make_fake):
    fields = {"prompt": "Why?", "sampling": Sampling(seed=3)}
    one, two = [await whole(make_fake(), **fields) for _ in range(2)]
    assert one == two
    assert one.text in LONG
    assert one.seed == 3


async def test_prompt_seed_and_index_each_choose_the_place_where_the_text_begins(make_fake):
    runtime = make_fake()
    plain = {"stopping": Stopping(max_new_tokens=9)}
    texts = {
        (await whole(runtime, **plain)).text,
        (await whole(runtime, **plain, prompt="Twice")).text,
        (await whole(runtime, **plain, sampling=Sampling(seed=1))).text,
    }
    assert len(texts) == 3
    several = await chunks_of(runtime, **plain, n=3)
    assert [chunk.index for chunk in several] == [0, 1, 2]
    assert len({chunk.text for chunk in several}) == 3


async def test_a_stream_is_a_chunk_a_token_and_the_same_text_as_whole(make_fake):
    runtime = make_fake()
    one = await whole(runtime)
    stream = await chunks_of(runtime, stream=True)
    assert text_of(stream) == one.text
    assert [chunk.generated_tokens for chunk in stream] == list(range(1, len(stream) + 1))
    assert [chunk.stop for chunk in stream] == [None] * (len(stream) - 1) + [one.stop]
    assert one.generated_tokens == len(stream)


async def test_the_sentence_ends_with_the_end_of_text_token(make_fake):
    one = await whole(make_fake())
    assert one.text.endswith(". ")
    assert one.stop == Stop(reason=StopReason.EOS, token_id=EOS_ID)


async def test_the_end_of_text_can_be_ignored_and_waits_for_the_least_tokens(make_fake):
    runtime = make_fake(max_model_len=200)
    ignored = await whole(runtime, stopping=Stopping(ignore_eos=True, max_new_tokens=100))
    assert len(ignored.text) == 100
    plain = await whole(runtime)
    later = await whole(runtime, stopping=Stopping(min_new_tokens=len(plain.text) + 1))
    assert len(later.text) == len(plain.text) + len(SENTENCE)


@pytest.mark.parametrize(
    ("asked", "length", "reason"),
    [
        (5, 5, StopReason.MAX_TOKENS),
        (16, 16, StopReason.MAX_TOKENS),
        (17, 16, StopReason.TOKEN_LIMIT),
        (None, 16, StopReason.TOKEN_LIMIT),
    ],
)
async def test_the_requests_limit_and_the_models_limit_are_told_apart(
    make_fake, asked, length, reason
):
    stopping = Stopping(max_new_tokens=asked, ignore_eos=True)
    one = await whole(make_fake(max_model_len=20), stopping=stopping)
    assert (one.generated_tokens, one.stop) == (length, Stop(reason=reason))


async def test_the_time_limit_ends_after_at_least_one_token(make_fake):
    one = await whole(make_fake(), stopping=Stopping(time_limit_s=0.0))
    assert (one.generated_tokens, one.stop) == (1, Stop(reason=StopReason.TIME_LIMIT))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sequence", ["fox", "e", "jumps over the lazy", "og. t"])
async def test_a_stop_sequence_is_left_out_unless_it_is_asked_for(make_fake, stream, sequence):
    runtime = make_fake()
    texts = {}
    for include in (False, True):
        stopping = Stopping(
            stop_sequences=("zzz", sequence), include_stop_sequence=include, ignore_eos=True
        )
        chunks = await chunks_of(runtime, stream=stream, stopping=stopping)
        assert chunks[-1].stop == Stop(reason=StopReason.STOP_SEQUENCE, sequence=sequence)
        texts[include] = text_of(chunks)
    assert texts[True] == texts[False] + sequence
    assert sequence not in texts[False]


async def test_no_part_of_a_stop_sequence_ever_leaks_into_a_stream(make_fake):
    runtime = make_fake()
    stop = "lazy dog"
    for seed in range(len(SENTENCE)):
        sent = ""
        stopping = Stopping(stop_sequences=(stop, "lazy cat"), ignore_eos=True)
        request = {"stream": True, "stopping": stopping, "sampling": Sampling(seed=seed)}
        for chunk in await chunks_of(runtime, **request):
            sent += chunk.text
            assert not any(sent.endswith(stop[:n]) for n in range(5, len(stop) + 1))
        assert (sent + stop) in LONG


async def test_text_held_back_for_a_stop_sequence_is_sent_at_the_end(make_fake):
    runtime = make_fake()
    stopping = Stopping(stop_sequences=("never met",), max_new_tokens=10, ignore_eos=True)
    stream = await chunks_of(runtime, stream=True, stopping=stopping)
    plain = await whole(runtime, stopping=Stopping(max_new_tokens=10, ignore_eos=True))
    assert text_of(stream) == plain.text
    assert stream[0].text == ""


async def test_a_stop_sequence_before_the_least_tokens_does_not_count(make_fake):
    stopping = Stopping(stop_sequences=(" ",), min_new_tokens=12)
    one = await whole(make_fake(), stopping=stopping)
    assert one.generated_tokens >= 12
    assert " " in one.text


async def test_details_are_given_only_when_asked_for(make_fake):
    runtime = make_fake()
    limit = {"stopping": Stopping(max_new_tokens=3)}
    plain = await whole(runtime, **limit)
    assert plain.tokens == ()
    assert plain.prompt is not None
    assert (plain.prompt.token_count, plain.prompt.text, plain.prompt.tokens) == (4, None, ())

    asked = Details(
        input_text=True,
        input_tokens=True,
        generated_tokens=True,
        logprobs=True,
        ranks=True,
        top_n_tokens=2,
    )
    full = await whole(runtime, **limit, details=asked)
    assert full.prompt is not None
    assert full.prompt.text == "Once"
    assert [token.text for token in full.prompt.tokens] == list("Once")
    assert "".join(token.text for token in full.tokens) == full.text
    for token in full.tokens:
        assert (token.id, token.rank) == (ord(token.text), 1)
        assert token.logprob == pytest.approx(-0.6931472)
        assert [other.rank for other in token.top] == [1, 2]
        assert token.top[0].id == token.id
    bare = await whole(runtime, **limit, details=Details(generated_tokens=True))
    assert [(t.logprob, t.rank, t.top) for t in bare.tokens] == [(None, None, ())] * 3


async def test_the_prompt_is_described_once_a_request(make_fake):
    chunks = await chunks_of(make_fake(), stream=True, n=3)
    assert [chunk.prompt is not None for chunk in chunks] == [True] + [False] * (len(chunks) - 1)


async def test_a_prompt_may_be_text_ids_or_a_conversation(make_fake):
    runtime = make_fake()
    assert await whole(runtime, prompt=tuple(map(ord, "Once"))) == await whole(runtime)
    chat = Chat(turns=(Turn(role="user", content="hi"), Turn(role="assistant", content="yo")))
    shown = await whole(runtime, prompt=chat, details=Details(input_text=True))
    assert shown.prompt is not None
    assert shown.prompt.text == "user: hi\nassistant: yo\n"


async def test_a_prompt_without_room_is_refused_with_the_numbers(make_fake):
    with pytest.raises(PlatformError) as caught:
        await whole(make_fake(max_model_len=4))
    error = caught.value
    assert error.code is Code.INVALID_ARGUMENT
    assert "4 tokens" in error.message
    assert "the prompt has 4" in error.message


async def test_truncation_keeps_the_end_of_the_prompt(make_fake):
    fields = {"truncate_prompt_tokens": 2, "details": Details(input_text=True)}
    one = await whole(make_fake(), **fields)
    assert one.prompt is not None
    assert (one.prompt.text, one.prompt.token_count) == ("ce", 2)
