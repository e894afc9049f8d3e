"""vLLM's outputs, built by hand, counted as tokens."""

import pytest
from vllm.outputs import CompletionOutput, PoolingOutput, PoolingRequestOutput, RequestOutput

from rayserve_platform.runtimes.vllm.counting import Tally, counted, gathered

PROMPT = [10, 11, 12]


def choice(index: int, *token_ids: int) -> CompletionOutput:
    return CompletionOutput(
        index=index, text="", token_ids=token_ids, cumulative_logprob=None, logprobs=None
    )


def output(*choices: CompletionOutput, finished: bool = False) -> RequestOutput:
    return RequestOutput(
        request_id="r",
        prompt="why?",
        prompt_token_ids=PROMPT,
        prompt_logprobs=None,
        outputs=list(choices),
        finished=finished,
    )


async def run(outputs, *, is_cumulative: bool) -> Tally:
    tally = Tally()

    async def source():
        for one in outputs:
            yield one

    passed = [one async for one in counted(source(), tally, is_cumulative=is_cumulative)]
    assert passed == outputs
    return tally


async def test_what_comes_bit_by_bit_is_added_and_the_prompt_counts_once():
    outputs = [output(choice(0, 1)), output(choice(0, 2, 3)), output(choice(0, 4))]
    assert (await run(outputs, is_cumulative=False)).take() == (3, 4)


async def test_what_is_said_again_counts_once():
    outputs = [output(choice(0, 1)), output(choice(0, 1, 2, 3)), output(choice(0, 1, 2, 3))]
    assert (await run(outputs, is_cumulative=True)).take() == (3, 3)


@pytest.mark.parametrize("is_cumulative", [True, False])
async def test_every_choice_counts(is_cumulative):
    outputs = [output(choice(0, 1, 2)), output(choice(1, 5)), output(choice(2, 7, 8, 9))]
    assert (await run(outputs, is_cumulative=is_cumulative)).take() == (3, 6)


async def test_a_pooled_prompt_counts_and_nothing_is_written():
    pooled = PoolingRequestOutput(
        request_id="r",
        outputs=PoolingOutput(data=None),  # not looked at
        prompt_token_ids=PROMPT,
        num_cached_tokens=0,
        finished=True,
    )
    assert (await run([pooled], is_cumulative=False)).take() == (3, 0)


async def test_parts_make_the_answer_that_vllm_makes_of_them_with_its_choices_in_order():
    parts = [
        output(choice(1, 5)),
        output(choice(0, 1, 2)),
        output(choice(1, 6)),
        output(choice(0, 3), finished=True),
    ]

    async def source():
        for part in parts:
            yield part

    (whole,) = [one async for one in gathered(source())]
    assert [list(one.token_ids) for one in whole.outputs] == [[1, 2, 3], [5, 6]]
    assert whole.finished


async def test_whoever_leaves_early_has_used_what_came():
    tally = Tally()
    closed = []

    async def source():
        try:
            yield output(choice(0, 1))
            yield output(choice(0, 2))
        finally:
            closed.append(True)

    stream = counted(source(), tally, is_cumulative=False)
    await anext(stream)
    await stream.aclose()
    assert tally.take() == (3, 1)
    assert closed == [True]


def test_a_tally_tells_everything_once():
    tally = Tally()
    assert tally.take() is None
    tally.add(prompt=3, generated=0)
    tally.add(prompt=0, generated=2)
    assert tally.take() == (3, 2)
    assert tally.take() is None
