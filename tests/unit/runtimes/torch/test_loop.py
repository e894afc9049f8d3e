"""The decoding loop: who is in it, who waits, and what its failures do to them."""

import asyncio
from typing import Any

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Sampling, Stopping

PROMPT = "The capital of France is"


async def test_a_request_that_is_left_leaves_the_loop(directory, serve):
    served = await serve(directory("llama"))
    async with served.stream(prompt="A", n=3, stopping=Stopping(ignore_eos=True)) as chunks:
        await anext(chunks)
        assert served.runtime.running == 1
    await served.until(0)
    asking = asyncio.create_task(served.ask(prompt="A", stopping=Stopping(ignore_eos=True)))
    await served.until(1)
    asking.cancel()
    await served.until(0)


async def test_an_answer_that_ends_does_not_wait_for_longer_ones(directory, serve):
    served = await serve(directory("t5"))
    rules = Stopping(max_new_tokens=2000, ignore_eos=True)
    async with served.stream(prompt=PROMPT, stopping=rules) as chunks:
        await anext(chunks)
        short = await served.answer(prompt="A", stopping=Stopping(max_new_tokens=3))
        assert short.stop is not None
        assert served.runtime.running == 1


async def test_more_requests_than_may_wait_are_refused(directory, serve):
    served = await serve(directory("llama"), max_batch_size=1, max_waiting=1)
    rules = Stopping(ignore_eos=True)
    async with (
        served.stream(prompt="A", stopping=rules) as first,
        served.stream(prompt="A", stopping=rules) as second,
    ):
        await anext(first)
        waiting = asyncio.ensure_future(anext(second))
        await served.until(2)
        with pytest.raises(PlatformError) as caught:
            await served.ask(prompt="A")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.message == "Model is overloaded"
    assert caught.value.retry_after_s == 1
    await served.until(0)
    assert (await served.answer(prompt="A", stopping=Stopping(max_new_tokens=1))).stop


async def test_a_waiting_request_says_how_long_it_waited(directory, serve):
    served = await serve(directory("llama"), max_batch_size=1)
    asked = {"prompt": "A", "stopping": Stopping(max_new_tokens=40, ignore_eos=True)}
    rules = Stopping(ignore_eos=True)
    async with served.stream(prompt="A", stopping=rules) as chunks:
        first = (await anext(chunks))[0]
        waiting = asyncio.create_task(served.answer(**asked))
        await served.until(2)
        for _ in range(3):
            await anext(chunks)
    assert (await waiting).prompt.queued_s > first.prompt.queued_s


async def test_no_memory_for_a_step_is_overload_and_the_next_request_is_served(
    directory, serve, monkeypatch
):
    import torch

    from rayserve_platform.runtimes.torch.network import Network

    served = await serve(directory("llama"))
    decode, prefill = Network.decode, Network.prefill

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for name, own in (("decode", decode), ("prefill", prefill)):
        monkeypatch.setattr(Network, name, full)
        with pytest.raises(PlatformError) as caught:
            await served.ask(prompt="A", stopping=Stopping(ignore_eos=True, max_new_tokens=9))
        assert (caught.value.code, served.runtime.running) == (Code.RESOURCE_EXHAUSTED, 0)
        monkeypatch.setattr(Network, name, own)
        await served.answer(prompt="A", stopping=Stopping(max_new_tokens=3))
        await served.runtime.check_health()


async def test_an_error_of_one_request_leaves_the_others_alone(directory, serve, monkeypatch):
    from rayserve_platform.runtimes.torch.sampling import CountPenalty

    def broken(*_):
        raise ZeroDivisionError("within /srv/secret")

    monkeypatch.setattr(CountPenalty, "__call__", broken)
    served = await serve(directory("llama"))
    rules = Stopping(max_new_tokens=20, ignore_eos=True)
    found: Any = await asyncio.gather(
        served.answer(prompt="A", stopping=rules),
        served.ask(prompt="A", stopping=rules, sampling=Sampling(presence_penalty=1.0)),
        return_exceptions=True,
    )
    good, bad = found
    assert good.generated_tokens == 20
    assert (bad.code, bad.message) == (Code.INTERNAL, "internal error")
    await served.runtime.check_health()


async def test_a_loop_that_has_died_is_not_healthy_and_answers_nobody(
    directory, serve, monkeypatch
):
    from rayserve_platform.runtimes.torch.network import Network

    served = await serve(directory("llama"))
    await served.runtime.check_health()

    def broken(*_):
        raise RuntimeError("device-side assert triggered")

    async with served.stream(prompt="A", stopping=Stopping(ignore_eos=True)) as chunks:
        await anext(chunks)
        monkeypatch.setattr(Network, "decode", broken)
        with pytest.raises(PlatformError, match="not available") as caught:
            async for _ in chunks:
                pass
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(PlatformError, match="not available"):
        await served.runtime.check_health()
    with pytest.raises(PlatformError, match="not available"):
        await served.ask(prompt="A")


async def test_stopping_ends_what_is_unfinished(directory, serve):
    served = await serve(directory("llama"))
    async with served.stream(prompt="A", stopping=Stopping(ignore_eos=True)) as chunks:
        await anext(chunks)
        stopping = asyncio.create_task(served.runtime.stop())
        with pytest.raises(PlatformError, match="not available"):
            async for _ in chunks:
                pass
        await stopping
