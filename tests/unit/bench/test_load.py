import pytest

from rayserve_platform.bench.calls import Call, Endpoint, Generation, generation_call
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.exchange import first_model
from rayserve_platform.bench.load import Closed, Open, check_answers, run_blocking, run_load
from rayserve_platform.bench.ports import free_port
from rayserve_platform.bench.prompts import BUILT_IN, read_prompts

PROMPTS = ("one", "two", "three")
FOUR = Closed(concurrency=2, requests=4)


def call_to(url: str, model: str = "good", timeout_s: float = 30.0, **generation) -> Call:
    return generation_call(
        url,
        Generation(**generation),
        model=model,
        prompts=PROMPTS,
        headers={"X-Team": "red"},
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
async def test_streams_are_measured_with_the_servers_own_usage(openai, endpoint: Endpoint):
    _, url = openai
    result = await run_load(call_to(url, endpoint=endpoint), FOUR)
    assert (result.succeeded, result.errors, result.tokens_from) == (4, {}, "usage")
    assert result.output_tokens_per_s == pytest.approx(4 * 7 / result.elapsed_s)
    events = 6 if endpoint == "chat" else 5
    assert result.events_per_s == pytest.approx(4 * events / result.elapsed_s)
    assert None not in (result.ttft_p50_s, result.itl_p99_s, result.tpot_p50_s)


async def test_without_usage_content_chunks_are_counted_and_said_so(openai):
    _, url = openai
    result = await run_load(call_to(url, model="no-usage"), FOUR)
    assert result.tokens_from == "chunks"
    assert result.output_tokens_per_s == pytest.approx(4 * 4 / result.elapsed_s)


async def test_whole_answers_have_tokens_but_no_first_token(openai):
    _, url = openai
    result = await run_load(call_to(url, stream=False), FOUR)
    assert (result.succeeded, result.tokens_from, result.ttft_p50_s) == (4, "usage", None)
    assert result.latency_p99_s is not None


async def test_requests_take_turns_with_the_prompts_and_carry_every_field(openai):
    server, url = openai
    call = call_to(url + "/v1/", max_tokens=9, ignore_eos=True)
    await run_load(call, Closed(concurrency=1, requests=4))
    sent = [body["messages"][0]["content"] for body in server.bodies]
    assert sent == ["one", "two", "three", "one"]
    assert server.headers[0]["X-Team"] == "red"
    del server.bodies[0]["messages"]
    assert server.bodies[0] == {
        "model": "good",
        "max_tokens": 9,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("fails", "http_503"),
        ("cut", "truncated"),
        ("error-inside", "stream_error"),
        ("drops", "disconnect"),
    ],
)
async def test_failures_are_counted_by_kind_and_in_nothing_else(openai, model: str, kind: str):
    _, url = openai
    result = await run_load(call_to(url, model=model), FOUR)
    assert (result.succeeded, dict(result.errors)) == (0, {kind: 4})
    assert (result.requests_per_s, result.latency_p50_s, result.events_per_s) == (None, None, None)
    with pytest.raises(BenchError, match=f"no request succeeded .{kind} x4"):
        check_answers(result, "server")


async def test_server_that_hangs_is_a_timeout(openai):
    _, url = openai
    result = await run_load(call_to(url, model="hangs", timeout_s=0.2), FOUR)
    assert dict(result.errors) == {"timeout": 4}


async def test_server_that_is_not_there_is_a_connect_error():
    result = await run_load(call_to(f"http://127.0.0.1:{free_port()}"), FOUR)
    assert dict(result.errors) == {"connect": 4}


async def test_stream_asked_for_and_not_given_is_a_bad_answer(openai):
    _, url = openai
    call = Call(
        url=url + "/v1/completions", bodies=(b'{"model":"good","stream":false}',), stream=True
    )
    result = await run_load(call, FOUR)
    assert dict(result.errors) == {"bad_answer": 4}


async def test_raw_answers_are_only_counted(openai):
    _, url = openai
    unary = Call(url=url + "/raw", bodies=(b'{"a": 1}',), openai=False)
    stream = Call(url=url + "/raw", bodies=(b'{"stream": true}',), openai=False)
    counted = await run_load(unary, FOUR)
    assert (counted.succeeded, counted.events_per_s, counted.tokens_from) == (4, None, None)
    streamed = await run_load(stream, FOUR)
    assert streamed.events_per_s == pytest.approx(4 * 5 / streamed.elapsed_s)


async def test_closed_loop_by_time_ends_and_counts_what_it_sent(openai):
    _, url = openai
    ticks: list[None] = []
    result = await run_load(
        call_to(url), Closed(concurrency=2, duration_s=0.2), tick=lambda: ticks.append(None)
    )
    assert result.succeeded == len(ticks) > 0


async def test_open_loop_sends_every_arrival(openai):
    server, url = openai
    result = await run_load(call_to(url), Open(rate=500, requests=6, seed=1))
    assert (result.succeeded, len(server.bodies), result.load) == (6, 6, "rate=500/s")


def test_arrivals_repeat_with_the_seed_and_keep_the_rate():
    arrivals = Open(rate=4, requests=4000, seed=7).arrivals()
    assert arrivals == Open(rate=4, requests=4000, seed=7).arrivals()
    assert arrivals != Open(rate=4, requests=4000, seed=8).arrivals()
    assert arrivals == sorted(arrivals)
    assert len(arrivals) / arrivals[-1] == pytest.approx(4, rel=0.1)


async def test_first_listed_model_is_the_default(openai):
    _, url = openai
    assert await first_model(url, {}) == "good"
    with pytest.raises(BenchError, match=r"answered 401; give --model, and --api-key"):
        await first_model(url, {"Authorization": "Bearer wrong"})
    with pytest.raises(BenchError, match="can't be reached"):
        await first_model(f"http://127.0.0.1:{free_port()}", {})


def test_built_in_prompts_share_no_beginning():
    assert len({prompt.split()[0] for prompt in BUILT_IN}) == len(BUILT_IN) == 16


def test_prompts_file_gives_one_prompt_per_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\n two \n")
    assert read_prompts(path) == ("one", "two")
    path.write_text("\n")
    with pytest.raises(BenchError, match="has no prompt"):
        read_prompts(path)


def test_blocking_run_returns_what_the_coroutine_does():
    async def answer() -> int:
        return 42

    assert run_blocking(answer()) == 42
