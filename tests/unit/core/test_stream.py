import asyncio
import contextlib

import pytest

from rayserve_platform.core.messages import Chunk, PromptInfo, Stop, StopReason, Token
from rayserve_platform.core.stream import Coalescer, join


async def test_the_first_item_goes_out_before_the_second_is_made():
    stream = Coalescer[int](8)
    more = asyncio.Event()

    async def produce() -> None:
        await stream.put(1)
        await more.wait()
        await stream.put(2)

    async with contextlib.aclosing(stream.batches(produce())) as batches:
        assert await anext(batches) == [1]
        more.set()
        assert [batch async for batch in batches] == [[2]]


async def test_what_is_ready_when_the_consumer_comes_back_is_one_batch():
    stream = Coalescer[int](8)
    steps = [asyncio.Event() for _ in range(2)]

    async def produce() -> None:
        await stream.put(0)
        await steps[0].wait()
        for item in (1, 2, 3):
            await stream.put(item)
        steps[1].set()

    async with contextlib.aclosing(stream.batches(produce())) as batches:
        assert await anext(batches) == [0]
        steps[0].set()
        await steps[1].wait()
        assert await anext(batches) == [1, 2, 3]
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_producer_waits_while_the_bound_is_reached(limit):
    stream = Coalescer[int](limit)
    made: list[int] = []

    async def produce() -> None:
        for item in range(10):
            await stream.put(item)
            made.append(item)

    got: list[int] = []
    async with contextlib.aclosing(stream.batches(produce())) as batches:
        async for batch in batches:
            assert 1 <= len(batch) <= limit
            got += batch
            for _ in range(20):  # the producer gets every chance to run ahead
                await asyncio.sleep(0)
            assert len(made) <= len(got) + limit
    assert got == list(range(10))


async def test_items_come_out_complete_and_in_order_whoever_is_faster():
    stream = Coalescer[int](4)

    async def produce() -> None:
        for item in range(200):
            if item % 7 == 0:
                await asyncio.sleep(0)
            await stream.put(item)

    got: list[int] = []
    async for batch in stream.batches(produce()):
        if len(got) % 3 == 0:
            await asyncio.sleep(0)
        got += batch
    assert got == list(range(200))


async def test_the_producers_exception_comes_after_its_items():
    stream = Coalescer[int](8)

    async def produce() -> None:
        await stream.put(1)
        await stream.put(2)
        raise LookupError("gone")

    got: list[int] = []

    async def consume() -> None:
        async for batch in stream.batches(produce()):
            got.extend(batch)

    with pytest.raises(LookupError, match="gone"):
        await consume()
    assert got == [1, 2]


async def test_a_producer_without_items_ends_the_stream():
    stream = Coalescer[int](8)

    async def nothing() -> None:
        await asyncio.sleep(0)

    assert [batch async for batch in stream.batches(nothing())] == []


@pytest.mark.parametrize("full", [True, False])
async def test_closing_cancels_the_producer_and_waits_for_its_clean_up(full):
    stream = Coalescer[int](1)
    ended = []

    async def produce() -> None:
        try:
            await stream.put(1)
            if full:
                await stream.put(2)
                await stream.put(3)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    batches = stream.batches(produce())
    assert await anext(batches) == [1]
    await batches.aclose()
    assert ended == [True]


async def test_cancelling_the_consumer_cancels_the_producer():
    stream = Coalescer[int](1)
    ended = asyncio.Event()
    reading = asyncio.Event()

    async def produce() -> None:
        try:
            reading.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def consume() -> None:
        async with contextlib.aclosing(stream.batches(produce())) as batches:
            async for _ in batches:
                pass

    task = asyncio.create_task(consume())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_join_folds_a_continuation_into_one_chunk():
    tokens = [Token(id=i, text=c) for i, c in enumerate("abc")]
    prompt = PromptInfo(token_count=4, text="why?")
    stop = Stop(reason=StopReason.MAX_TOKENS)
    chunks = [
        Chunk(index=2, text="a", tokens=(tokens[0],), generated_tokens=1, prompt=prompt, seed=7),
        Chunk(index=2, text="", tokens=(tokens[1],), generated_tokens=2),
        Chunk(index=2, text="bc", tokens=(tokens[2],), generated_tokens=3, stop=stop),
    ]
    assert join(chunks) == Chunk(
        index=2,
        text="abc",
        tokens=tuple(tokens),
        generated_tokens=3,
        prompt=prompt,
        seed=7,
        stop=stop,
    )


def test_join_of_one_chunk_is_that_chunk():
    chunk = Chunk(text="a", generated_tokens=1, stop=Stop(reason=StopReason.EOS))
    assert join([chunk]) == chunk
