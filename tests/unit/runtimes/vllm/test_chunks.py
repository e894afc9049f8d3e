"""vLLM's outputs, built by hand, as chunks."""

import pytest
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.metrics.stats import RequestStateStats

from rayserve_platform.core.messages import (
    Details,
    Generate,
    PromptInfo,
    Sampling,
    Stop,
    Stopping,
    StopReason,
    Token,
)
from rayserve_platform.runtimes.vllm.chunks import ChunkMaker

EOS = 2
PROMPT = [10, 11, 12]


def token_text(token_id: int) -> str:
    return f"<{token_id}>"


def maker(*, clamped: bool = False, eos: int | None = EOS, **fields) -> ChunkMaker:
    request = Generate(**{"model": "m", "prompt": "why?", **fields})
    return ChunkMaker(request, clamped=clamped, eos=eos, token_text=token_text, prompt_text="why?")


def part(text: str = "a", ids=(7,), *, index: int = 0, **fields) -> CompletionOutput:
    return CompletionOutput(
        index=index,
        text=text,
        token_ids=list(ids),
        cumulative_logprob=None,
        **{"logprobs": None, **fields},
    )


def output(*parts: CompletionOutput, prompt=PROMPT, prompt_logprobs=None) -> RequestOutput:
    return RequestOutput(
        request_id="r",
        prompt=None,
        prompt_token_ids=prompt,
        prompt_logprobs=prompt_logprobs,
        outputs=list(parts),
        finished=False,
    )


def stop_of(ids=(7,), *, clamped: bool = False, eos: int | None = EOS, **fields) -> Stop | None:
    (chunk,) = maker(clamped=clamped, eos=eos).chunks(output(part(ids=ids, **fields)))
    return chunk.stop


@pytest.mark.parametrize(
    ("clamped", "reason"), [(False, StopReason.MAX_TOKENS), (True, StopReason.TOKEN_LIMIT)]
)
def test_the_end_by_length_is_the_requests_or_the_models_limit(clamped, reason):
    assert stop_of(clamped=clamped, finish_reason="length") == Stop(reason=reason)


def test_the_end_by_a_stop_text_names_it():
    assert stop_of(finish_reason="stop", stop_reason="END") == Stop(
        reason=StopReason.STOP_SEQUENCE, sequence="END"
    )


def test_the_end_by_a_stop_token_names_it_and_its_text():
    making = maker(stopping=Stopping(stop_token_ids=(42,)))
    (chunk,) = making.chunks(output(part(finish_reason="stop", stop_reason=42)))
    assert chunk.stop == Stop(reason=StopReason.STOP_SEQUENCE, sequence="<42>", token_id=42)


def test_a_further_end_of_text_token_of_the_model_is_no_stop_sequence():
    found = stop_of(ids=(7, 42), finish_reason="stop", stop_reason=42)
    assert found == Stop(reason=StopReason.EOS, sequence="<42>", token_id=42)


def test_the_end_of_text_names_the_token_that_ended_it():
    assert stop_of(ids=(7, 3), finish_reason="stop") == Stop(
        reason=StopReason.EOS, sequence="<3>", token_id=3
    )
    assert stop_of(ids=(), finish_reason="stop") == Stop(
        reason=StopReason.EOS, sequence="<2>", token_id=EOS
    )
    assert stop_of(ids=(), eos=None, finish_reason="stop") == Stop(reason=StopReason.EOS)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("abort", StopReason.CANCELLED), ("error", StopReason.ERROR), ("new one", StopReason.ERROR)],
)
def test_other_ends_are_told_apart(finish, reason):
    assert stop_of(finish_reason=finish) == Stop(reason=reason)


def test_no_end_is_no_stop():
    assert stop_of() is None


def test_counts_run_on_for_each_continuation():
    making = maker(n=2)
    first = making.chunks(output(part("a", (1,)), part("b", (2, 3), index=1)))
    second = making.chunks(output(part("c", (4, 5, 6), index=1)))
    third = making.chunks(output(part("", ()), part("d", (7,), index=1)))
    assert [(c.index, c.text, c.generated_tokens) for c in (*first, *second, *third)] == [
        (0, "a", 1),
        (1, "b", 2),
        (1, "c", 5),
        (0, "", 1),
        (1, "d", 6),
    ]


def test_the_seed_comes_with_the_first_chunk_of_each_continuation():
    making = maker(n=2, sampling=Sampling(seed=9))
    chunks = [
        *making.chunks(output(part(), part(index=1))),
        *making.chunks(output(part(), part(index=1))),
    ]
    assert [chunk.seed for chunk in chunks] == [9, 9, None, None]


def test_the_prompt_is_described_once():
    making = maker(n=2, details=Details(input_text=True))
    chunks = [
        *making.chunks(output(part(), part(index=1))),
        *making.chunks(output(part())),
    ]
    assert [chunk.prompt for chunk in chunks] == [
        PromptInfo(token_count=3, text="why?"),
        None,
        None,
    ]


def test_the_prompt_waits_until_it_is_known():
    making = maker()
    (early,) = making.chunks(output(part(), prompt=None))
    (late,) = making.chunks(output(part()))
    assert (early.prompt, late.prompt) == (None, PromptInfo(token_count=3))


def test_tokens_come_only_when_asked_for():
    (plain,) = maker(details=Details(logprobs=True)).chunks(output(part(ids=(7, 8))))
    assert plain.tokens == ()
    (asked,) = maker(details=Details(generated_tokens=True)).chunks(output(part(ids=(7, 8))))
    assert asked.tokens == (Token(id=7, text="<7>"), Token(id=8, text="<8>"))


LOGPROBS = [
    {7: Logprob(logprob=-0.5, rank=2), 5: Logprob(logprob=-0.1, rank=1)},
    {8: Logprob(logprob=-3.0, rank=9), 5: Logprob(logprob=-0.1, rank=1)},
]


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (Details(generated_tokens=True), (None, None, [])),
        (Details(generated_tokens=True, logprobs=True), (-3.0, None, [])),
        (Details(generated_tokens=True, ranks=True), (None, 9, [])),
        (Details(generated_tokens=True, top_n_tokens=1), (None, None, [5])),
        (
            Details(generated_tokens=True, logprobs=True, ranks=True, top_n_tokens=2),
            (-3.0, 9, [5, 8]),
        ),
    ],
)
def test_logprobs_ranks_and_alternatives_come_as_asked_for(details, expected):
    (chunk,) = maker(details=details).chunks(output(part(ids=(7, 8), logprobs=LOGPROBS)))
    _, last = chunk.tokens
    assert (last.logprob, last.rank, [other.id for other in last.top]) == expected


def test_alternatives_are_ordered_by_rank_and_complete():
    details = Details(generated_tokens=True, top_n_tokens=2)
    (chunk,) = maker(details=details).chunks(output(part(ids=(7,), logprobs=LOGPROBS[:1])))
    assert chunk.tokens[0].top == (
        Token(id=5, text="<5>", logprob=-0.1, rank=1),
        Token(id=7, text="<7>", logprob=-0.5, rank=2),
    )


def test_the_first_token_of_a_prompt_has_no_logprob():
    logprobs = [None, {11: Logprob(logprob=-1.0, rank=3)}, {12: Logprob(logprob=-2.0, rank=4)}]
    details = Details(input_tokens=True, logprobs=True, ranks=True)
    (chunk,) = maker(details=details).chunks(output(part(), prompt_logprobs=logprobs))
    assert chunk.prompt is not None
    assert [(t.id, t.logprob, t.rank) for t in chunk.prompt.tokens] == [
        (10, None, None),
        (11, -1.0, 3),
        (12, -2.0, 4),
    ]


def test_what_its_time_limit_ends_is_told_from_what_else_is_aborted():
    making = maker(n=2)
    making.chunks(output(part("ab", (1, 2))))
    making.timed_out = True
    parts = (part("c", (), finish_reason="abort"), part("", (), index=1, finish_reason="abort"))
    ended = making.chunks(output(*parts))
    assert [(c.index, c.text, c.generated_tokens) for c in ended] == [(0, "c", 2), (1, "", 0)]
    assert {c.stop for c in ended} == {Stop(reason=StopReason.TIME_LIMIT)}


def test_what_ends_by_itself_as_time_runs_out_keeps_its_reason():
    making = maker()
    making.timed_out = True
    (chunk,) = making.chunks(output(part(finish_reason="length")))
    assert chunk.stop == Stop(reason=StopReason.MAX_TOKENS)


@pytest.mark.parametrize(
    ("queued_ts", "scheduled_ts", "expected"), [(2.0, 5.5, 3.5), (0.0, 0.0, None), (2.0, 0.0, None)]
)
def test_the_time_in_the_queue_is_told_where_vllm_has_measured_it(
    queued_ts, scheduled_ts, expected
):
    measured = output(part())
    measured.metrics = RequestStateStats(queued_ts=queued_ts, scheduled_ts=scheduled_ts)
    (chunk,) = maker().chunks(measured)
    assert chunk.prompt == PromptInfo(token_count=3, queued_s=expected)
