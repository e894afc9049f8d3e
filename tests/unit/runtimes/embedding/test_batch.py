"""The queue in front of the backends: batching, bounds, cancelling, failing, ending."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.embedding.backend import Ids, Result
from rayserve_platform.runtimes.embedding.batch import Batcher, Done, Row

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


class GatedBackend:
    """Answers each text with its first token, once the gate is open; remembers its batches."""

    def __init__(self, *, lanes: int = 1) -> None:
        self.lanes = lanes
        self.call_tokens = 10**6
        self.gate = threading.Event()
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.running = self.most_running = 0
        self.failing = False
        self._lock = threading.Lock()

    def run(self, ids: Ids, mask: Ids, segments: Ids, *, alone: bool) -> Result:
        with self._lock:
            self.batches.append([int(row[0]) for row in ids])
            self.alone.append(alone)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        assert self.gate.wait(20)
        with self._lock:
            self.running -= 1
        if self.failing:
            raise RuntimeError("scripted")
        return np.stack([ids[:, 0], mask.sum(1)], 1).astype(np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
def make_batcher() -> Iterator[Callable[..., Batcher]]:
    made: list[Batcher] = []

    def make(lanes: int = 1, batch: int = 64, queued: int = 10**6) -> Batcher:
        made.append(
            Batcher(max_batch_tokens=batch, max_queued_tokens=queued, retry_after_s=2, lanes=lanes)
        )
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def row(first: int, length: int = 4) -> Row:
    return Row(ids=[first] * length)


async def ask(batcher: Batcher, backend: GatedBackend, *rows: Row) -> list[list[float]]:
    done = await batcher.run(backend, lambda: list(rows), pad_id=0)
    found: list[list[float]] = done.results.tolist()
    return found


async def queue_up(
    batcher: Batcher, backend: GatedBackend, eventually: Eventually, *rows: Row
) -> list["asyncio.Task[list[list[float]]]"]:
    """Let one call run against the closed gate, and queue one request a row behind it."""
    tasks = [asyncio.create_task(ask(batcher, backend, row(999)))]
    await eventually(lambda: backend.running == 1)
    for item in rows:
        before = batcher.queued_tokens
        tasks.append(asyncio.create_task(ask(batcher, backend, item)))
        await eventually(lambda before=before: batcher.queued_tokens > before)  # type: ignore[misc]
    return tasks


async def test_what_comes_in_while_a_batch_runs_makes_the_next_one(
    make_batcher, eventually: Eventually
) -> None:
    batcher, backend = make_batcher(), GatedBackend()
    tasks = await queue_up(batcher, backend, eventually, row(1), row(2, 3), row(3))
    backend.gate.set()
    assert await asyncio.gather(*tasks) == [[[999, 4]], [[1, 4]], [[2, 3]], [[3, 4]]]
    assert backend.batches == [[999], [1, 2, 3]]
    assert batcher.queued_tokens == 0


async def test_a_request_larger_than_a_batch_is_cut_and_put_together_again(make_batcher) -> None:
    batcher, backend = make_batcher(batch=8), GatedBackend()
    backend.gate.set()
    found = await ask(batcher, backend, *(row(i, 1 + i % 4) for i in range(1, 20)))
    assert found == [[i, 1 + i % 4] for i in range(1, 20)]
    assert len(backend.batches) > 4


async def test_a_request_without_texts_is_answered(make_batcher) -> None:
    done = await make_batcher().run(GatedBackend(), list, pad_id=0)
    assert done.rows == []
    assert len(done.results) == 0


async def test_a_cancelled_request_leaves_the_queue_before_it_is_batched(
    make_batcher, eventually: Eventually
) -> None:
    batcher, backend = make_batcher(), GatedBackend()
    tasks = await queue_up(batcher, backend, eventually, row(1), row(2), row(3))
    tasks[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[2]
    assert batcher.queued_tokens == 8
    backend.gate.set()
    await asyncio.gather(tasks[0], tasks[1], tasks[3])
    assert backend.batches == [[999], [1, 3]]


async def test_cancelling_a_running_request_disturbs_nobody(
    make_batcher, eventually: Eventually
) -> None:
    batcher, backend = make_batcher(), GatedBackend()
    tasks = await queue_up(batcher, backend, eventually, row(1))
    tasks[0].cancel()
    backend.gate.set()
    assert await tasks[1] == [[1, 4]]
    assert await ask(batcher, backend, row(5)) == [[5, 4]]


async def test_a_request_cancelled_while_it_is_tokenized_is_never_queued(
    make_batcher, eventually: Eventually
) -> None:
    batcher, backend = make_batcher(), GatedBackend()
    tokenizing, go_on = threading.Event(), threading.Event()

    def prepare() -> list[Row]:
        tokenizing.set()
        assert go_on.wait(20)
        return [row(1)]

    task = asyncio.create_task(batcher.run(backend, prepare, pad_id=0))
    await eventually(tokenizing.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    backend.gate.set()
    assert await ask(batcher, backend, row(2)) == [[2, 4]]
    assert backend.batches == [[2]]


async def test_brief_texts_of_one_turn_of_the_event_loop_are_one_batch(make_batcher) -> None:
    batcher, backend = make_batcher(lanes=2), GatedBackend(lanes=2)
    backend.gate.set()
    where: list[threading.Thread] = []

    def prepare(first: int) -> list[Row]:
        where.append(threading.current_thread())
        return [row(first)]

    def failing() -> list[Row]:
        raise RuntimeError("scripted")

    async def brief(work: Callable[[], list[Row]]) -> Done:
        done: Done = await batcher.run(backend, work, pad_id=0, brief=True)
        return done

    gone = asyncio.create_task(brief(lambda: prepare(4)))
    asyncio.get_running_loop().call_soon(gone.cancel)
    found = await asyncio.gather(
        gone,
        brief(lambda: prepare(1)),
        brief(failing),
        brief(lambda: prepare(2)),
        return_exceptions=True,
    )
    assert [done.results.tolist() for done in found if isinstance(done, Done)] == [
        [[1, 4]],
        [[2, 4]],
    ]
    assert [type(error) for error in found[::2]] == [asyncio.CancelledError, RuntimeError]
    assert backend.batches == [[1, 2]]
    assert set(where) == {threading.main_thread()}


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_again(
    make_batcher, eventually: Eventually
) -> None:
    batcher, backend = make_batcher(queued=10), GatedBackend()
    tasks = await queue_up(batcher, backend, eventually, row(1), row(2))
    with pytest.raises(PlatformError, match="Model is overloaded") as caught:
        await ask(batcher, backend, row(3))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.retry_after_s == 2
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert await ask(batcher, backend, row(3)) == [[3, 4]]


async def test_a_request_beyond_the_bound_is_taken_when_nothing_waits(make_batcher) -> None:
    batcher, backend = make_batcher(queued=10), GatedBackend()
    backend.gate.set()
    assert len(await ask(batcher, backend, *(row(i) for i in range(20)))) == 20


async def test_what_the_tokenizer_raises_reaches_the_caller_alone(make_batcher) -> None:
    batcher, backend = make_batcher(), GatedBackend()
    backend.gate.set()

    def prepare() -> list[Row]:
        raise PlatformError(Code.INVALID_ARGUMENT, "no text")

    with pytest.raises(PlatformError, match="no text"):
        await batcher.run(backend, prepare, pad_id=0)
    batcher.check()
    assert await ask(batcher, backend, row(1)) == [[1, 4]]


async def test_models_share_the_queue_but_never_a_batch(
    make_batcher, eventually: Eventually
) -> None:
    batcher, one, other = make_batcher(), GatedBackend(), GatedBackend()
    tasks = await queue_up(batcher, one, eventually, row(1))
    tasks.append(asyncio.create_task(ask(batcher, other, row(2))))
    await eventually(lambda: batcher.queued_tokens == 8)
    tasks.append(asyncio.create_task(ask(batcher, one, row(3))))
    await eventually(lambda: batcher.queued_tokens == 12)
    assert other.batches == []
    one.gate.set()
    other.gate.set()
    await asyncio.gather(*tasks)
    assert one.batches == [[999], [1, 3]]
    assert other.batches == [[2]]


async def test_much_work_runs_side_by_side_and_little_work_alone(
    make_batcher, eventually: Eventually
) -> None:
    batcher, backend = make_batcher(lanes=2, batch=512), GatedBackend(lanes=2)
    task = asyncio.create_task(ask(batcher, backend, *(row(i, 20) for i in range(1, 17))))
    await eventually(lambda: backend.running == 2)
    backend.gate.set()
    assert len(await task) == 16
    assert backend.alone == [False, False]
    assert [len(batch) for batch in backend.batches] == [8, 8]
    await ask(batcher, backend, row(1), row(2))
    assert backend.alone[2:] == [True]
    assert backend.most_running == 2


async def test_a_backend_of_one_lane_never_runs_side_by_side(make_batcher) -> None:
    batcher, backend = make_batcher(lanes=2, batch=8), GatedBackend()
    backend.gate.set()
    await ask(batcher, backend, *(row(i) for i in range(40)))
    assert backend.most_running == 1


async def test_a_failed_batch_fails_its_requests_and_three_in_a_row_the_engine(
    make_batcher,
) -> None:
    batcher, backend = make_batcher(), GatedBackend()
    backend.gate.set()
    backend.failing = True
    for _ in range(3):
        batcher.check()
        with pytest.raises(RuntimeError, match="scripted"):
            await ask(batcher, backend, row(1))
    with pytest.raises(PlatformError) as caught:
        batcher.check()
    assert caught.value.code is Code.UNAVAILABLE
    backend.failing = False
    assert await ask(batcher, backend, row(2)) == [[2, 4]]
    batcher.check()


async def test_closing_finishes_what_runs_and_refuses_what_waits(
    make_batcher, eventually: Eventually
) -> None:
    batcher, backend = make_batcher(), GatedBackend()
    running, waiting = await queue_up(batcher, backend, eventually, row(1))
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    with pytest.raises(PlatformError) as caught:
        await waiting
    assert caught.value.code is Code.UNAVAILABLE
    backend.gate.set()
    await closing
    assert await running == [[999, 4]]
    assert backend.batches == [[999]]
