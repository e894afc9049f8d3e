"""Answers from other threads: to whoever waits, once, in one turn of the event loop."""

import asyncio
import threading

import pytest

from rayserve_platform.core.futures import answer, answer_from_thread


async def test_answers_and_errors_reach_whoever_waits_and_nobody_else() -> None:
    loop = asyncio.get_running_loop()
    one, two, gone = loop.create_future(), loop.create_future(), loop.create_future()
    gone.cancel()
    answer([(gone, 0), (one, 1), (two, KeyError("x"))])
    assert await one == 1
    with pytest.raises(KeyError):
        await two
    answer([(one, 2)])
    assert one.result() == 1


async def test_a_thread_wakes_each_event_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3)]
    woken: list[object] = []
    wake = loop.call_soon_threadsafe

    def counted(call, *args):
        woken.append(call)
        return wake(call, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    answers = [(future, place) for place, future in enumerate(futures)]
    thread = threading.Thread(target=answer_from_thread, args=(answers,))
    thread.start()
    assert await asyncio.gather(*futures) == [0, 1, 2]
    thread.join()
    assert woken == [answer]


def test_an_event_loop_that_has_ended_is_left_be() -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    answer_from_thread([(future, 1)])
    assert not future.done()
