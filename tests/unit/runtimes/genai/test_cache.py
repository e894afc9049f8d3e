"""A cache too small for all: answers wait for memory, and none is robbed of it."""

import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from rayserve_platform.core.errors import PromptTooLong
from rayserve_platform.core.messages import Chunk, Generate, Sampling, Stopping, StopReason
from rayserve_platform.formats.source import find
from rayserve_platform.runtimes.genai import loading
from rayserve_platform.runtimes.genai.cache import Cache
from rayserve_platform.runtimes.genai.loop import DecodingLoop
from rayserve_platform.runtimes.genai.preparing import Preparer
from rayserve_platform.runtimes.genai.wire import Cancel, Items
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.genai import GenAIApp, GenAIEngine
from tests.unit.runtimes.genai.conftest import SOURCE

pytestmark = pytest.mark.llm

BLOCKS, BLOCK_TOKENS = 8, 32
PROMPTS = [
    "Once upon a time there was a",
    "def fibonacci(n):",
    "The capital of France is",
    "The three primary colours are",
]
LENGTH = 60


class Small:
    """A decoding loop in a thread of this process."""

    def __init__(self) -> None:
        settings = GenAIApp(
            model=Model(id="m", source=SOURCE),
            engine=GenAIEngine(threads=2, dynamic_quantization=False),
        )
        self.loaded = loading.load(find(SOURCE), settings)
        self._preparer = Preparer(self.loaded, most_answers=4)
        self._heard: SimpleQueue[Items] = SimpleQueue()
        self.most_running = 0
        self.loop = DecodingLoop(self.loaded.pipeline, self.loaded.cache, self._take)
        threading.Thread(target=self.loop.run, daemon=True).start()

    def _take(self, items: Items) -> None:
        running = self.loaded.pipeline.get_metrics().requests
        self.most_running = max(running, self.most_running)
        self._heard.put(items)

    def begin(self, number: int, prompt: Any, **request: Any) -> None:
        """Put a request in."""
        made = Generate(model="m", prompt=prompt, sampling=Sampling(temperature=0), **request)
        self.loop.put(self._preparer.job(number, made))

    def hear(self) -> Items:
        """Return what comes next."""
        return self._heard.get(timeout=60)

    def answers(self, *numbers: int) -> dict[int, Chunk]:
        """Return whole answers, when all are there."""
        found: dict[int, Chunk] = {}
        while len(found) < len(numbers):
            for number, item in self.hear():
                if number in numbers and item is not None:
                    assert isinstance(item, list), item
                    [found[number]] = item
        return found


@pytest.fixture(scope="module")
def small() -> Iterator[Small]:
    """A loop whose cache holds 8 blocks."""
    with pytest.MonkeyPatch.context() as patch:
        whole = loading._scheduler

        def tiny(settings: GenAIApp) -> Any:
            config = whole(settings)
            config.cache_size, config.num_kv_blocks = 0, BLOCKS
            return config

        patch.setattr(loading, "_scheduler", tiny)
        yield Small()


def test_room_is_counted_in_blocks():
    cache = Cache(blocks=3, block_tokens=16)
    assert cache.tokens == 48
    assert (cache.take(17), cache.take(17), cache.take(16)) == (2, None, 1)
    cache.give_back(2)
    assert cache.take(32) == 2


def test_a_models_length_is_what_the_cache_holds(small):
    assert small.loaded.max_model_len == small.loaded.cache.tokens == BLOCKS * BLOCK_TOKENS
    with pytest.raises(PromptTooLong) as caught:
        small.begin(1, tuple([28] * BLOCKS * BLOCK_TOKENS))
    assert caught.value.limit == BLOCKS * BLOCK_TOKENS
    small.begin(2, tuple([28] * (BLOCKS * BLOCK_TOKENS - 1)))
    stop = small.answers(2)[2].stop
    assert stop is not None
    assert stop.reason in {StopReason.TOKEN_LIMIT, StopReason.EOS}


def test_answers_that_do_not_fit_together_are_those_given_alone(small, plain):
    stopping = Stopping(max_new_tokens=LENGTH, ignore_eos=True)
    small.most_running = 0
    for number, prompt in enumerate(PROMPTS):
        small.begin(number, prompt, stopping=stopping)
    together = small.answers(*range(len(PROMPTS)))
    assert small.most_running == 2  # of three blocks each
    for number, prompt in enumerate(PROMPTS):
        _, text = plain.write(prompt, max_new_tokens=LENGTH, ignore_eos=True)
        assert together[number].text == text


def test_one_that_waits_for_memory_ends_when_its_time_does(small):
    whole = Stopping(ignore_eos=True)
    small.begin(1, PROMPTS[0], stopping=whole)
    small.begin(2, PROMPTS[1], stopping=Stopping(time_limit_s=0.2))
    stop = small.answers(2)[2].stop
    assert stop is not None
    assert stop.reason is StopReason.TIME_LIMIT
    small.loop.put(Cancel(1))


def test_those_that_leave_give_their_memory_back_within_2_s(small):
    whole = Stopping(ignore_eos=True)
    small.begin(1, PROMPTS[0], stream=True, stopping=whole)
    small.begin(2, PROMPTS[0], stream=True, stopping=whole)
    assert small.hear()
    for number in (1, 2):
        small.loop.put(Cancel(number))
    # The 2 s are those in which an answer that nobody waits for is to end.
    limit = time.monotonic() + 2
    while small.loaded.pipeline.has_non_finished_requests():
        assert time.monotonic() < limit
        time.sleep(0.01)
    small.begin(3, PROMPTS[0], stopping=Stopping(max_new_tokens=200))
    assert small.answers(3)[3].stop is not None
