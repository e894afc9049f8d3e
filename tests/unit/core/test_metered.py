"""What a meter is asked and told, verb by verb."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Detokenize, Embed, Generate, Stopping, Tokenize
from rayserve_platform.core.metered import MeteredRuntime
from rayserve_platform.core.principal import Target
from rayserve_platform.core.scores import Score
from rayserve_platform.core.tensors import Infer, Tensor
from rayserve_platform.core.usage import METER, TELL_USAGE, USAGE_KEY, admit

TARGET = Target(model="fake")
PROMPT = "why?"


class Meter:
    """Notes what it is asked and told."""

    def __init__(self, *, refuses: bool = False, is_charged: bool = False) -> None:
        self.is_charged = is_charged
        self.admitted: list[Target] = []
        self.spent: list[tuple[int, int]] = []
        self._refuses = refuses

    async def admit(self, target: Target) -> None:
        self.admitted.append(target)
        if self._refuses:
            raise PlatformError(Code.RESOURCE_EXHAUSTED, "no more")

    def spend(self, *, prompt: int, generated: int) -> None:
        self.spent.append((prompt, generated))

    @property
    def total(self) -> tuple[int, int]:
        return sum(p for p, _ in self.spent), sum(g for _, g in self.spent)


def request(**more: Any) -> Generate:
    given = {"stopping": Stopping(max_new_tokens=4), **more}
    return Generate(model="fake", prompt=PROMPT, **given)


TENSOR = Tensor(name="x", datatype="FP32", data=np.zeros(1, np.float32))
VERBS: list[tuple[str, Any, tuple[int, int]]] = [
    # The fake engine's tokens are characters.
    ("embed", Embed(model="fake", inputs=("ab", "cde")), (5, 0)),
    ("score", Score(model="fake", queries=("ab",), documents=("c", "def")), (6, 0)),
    ("tokenize", Tokenize(model="fake", prompt="ab"), (0, 0)),
    ("detokenize", Detokenize(model="fake", ids=(97,)), (0, 0)),
    ("infer", Infer(model="fake", inputs=(TENSOR,)), (0, 0)),
]


@pytest.fixture
def engine(make_fake):
    tasks = ("generate", "embed", "score", "infer")
    return make_fake(tasks=tasks, inputs={"x": {"shape": [-1]}}, adapters=("lora",))


@pytest.mark.parametrize(("verb", "asked", "total"), VERBS, ids=[verb for verb, *_ in VERBS])
async def test_a_verb_asks_the_meter_and_tells_it(engine, verb, asked, total):
    meter = Meter()
    answer = await getattr(MeteredRuntime(engine, meter, TARGET), verb)(asked)
    assert type(answer) is type(await getattr(engine, verb)(asked))
    assert meter.admitted == [TARGET]
    assert meter.total == total


@pytest.mark.parametrize(("verb", "asked", "total"), VERBS, ids=[verb for verb, *_ in VERBS])
async def test_a_refused_verb_never_reaches_the_engine(engine, verb, asked, total):
    with pytest.raises(PlatformError, match="no more"):
        await getattr(MeteredRuntime(engine, Meter(refuses=True), TARGET), verb)(asked)
    assert engine.seen == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
async def test_text_is_counted_as_it_comes_and_its_prompt_once(engine, stream, n):
    meter = Meter()
    asked = request(stream=stream, n=n)
    async for _ in MeteredRuntime(engine, meter, TARGET).generate(asked):
        pass
    assert meter.total == (len(PROMPT), 4 * n)
    assert len(meter.spent) == (4 * n if stream else n)


async def test_a_refused_text_never_reaches_the_engine(engine):
    stream = MeteredRuntime(engine, Meter(refuses=True), TARGET).generate(request())
    with pytest.raises(PlatformError, match="no more"):
        await anext(stream)
    assert engine.seen == []


async def test_leaving_early_ends_the_engine_s_work_and_has_cost_what_came(engine):
    meter = Meter()
    stream = MeteredRuntime(engine, meter, TARGET).generate(request(stream=True))
    await anext(stream)
    await anext(stream)
    assert engine.running == 1
    await stream.aclose()
    assert engine.running == 0
    assert meter.total == (len(PROMPT), 2)


@pytest.mark.parametrize("n", [1, 3])
async def test_a_whole_text_is_the_same_where_its_tokens_are_charged(engine, n):
    asked = request(n=n)
    answers = []
    for is_charged in (False, True):
        meter = Meter(is_charged=is_charged)
        runtime = MeteredRuntime(engine, meter, TARGET)
        chunks = [one async for batch in runtime.generate(asked) for one in batch]
        answers.append([replace(one, seed=None) for one in chunks])
        assert meter.total == (len(PROMPT), 4 * n)
    assert answers[0] == answers[1]
    assert len(answers[0]) == n


async def test_leaving_a_whole_text_before_its_end_has_cost_what_was_written(make_fake, eventually):
    engine, meter = make_fake(token_s=600), Meter(is_charged=True)
    runtime = MeteredRuntime(engine, meter, TARGET)

    async def ask():
        async with aclosing(runtime.generate(request())) as batches:
            return [batch async for batch in batches]

    asking = asyncio.create_task(ask())
    await eventually(lambda: meter.total == (len(PROMPT), 1))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert engine.running == 0


async def test_an_adapter_that_the_request_names_is_the_target(engine):
    meter = Meter()
    runtime = MeteredRuntime(engine, meter, TARGET)
    await anext(runtime.generate(request(adapter="lora")))
    await runtime.tokenize(Tokenize(model="fake", prompt="a", adapter="lora"))
    assert meter.admitted == [Target(model="fake", adapter="lora")] * 2


async def test_what_an_engine_s_own_server_tells_ends_at_the_meter():
    class Server:
        async def native(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", USAGE_KEY: (7, 1)})
            await send({"type": "http.response.body", "body": b"b", USAGE_KEY: (0, 2)})

    meter, sent = Meter(), []
    server: Any = Server()

    async def send(message):
        sent.append(message)

    await MeteredRuntime(server, meter, TARGET).native({}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert meter.admitted == [TARGET]
    assert meter.total == (7, 3)
    assert all(USAGE_KEY not in message for message in sent)
    with pytest.raises(PlatformError, match="no more"):
        await MeteredRuntime(server, Meter(refuses=True), TARGET).native({}, None, send)  # type: ignore[arg-type]
    assert len(sent) == 3


async def test_an_engine_s_own_server_tells_before_its_answer_where_tokens_are_charged():
    asked: list[Any] = []

    class Server:
        async def native(self, scope, receive, send):
            asked.append(scope["headers"])
            told = {"type": "http.response.body", "body": b"", "more_body": True}
            await send({**told, USAGE_KEY: (7, 1)})
            await send({**told, USAGE_KEY: (0, 2)})
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"b", USAGE_KEY: (0, 1)})

    sent: list[Any] = []

    async def send(message):
        sent.append(message)

    server: Any = Server()
    scope = {"headers": [(b"a", b"b")]}
    for is_charged in (True, False):
        meter = Meter(is_charged=is_charged)
        await MeteredRuntime(server, meter, TARGET).native(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
        assert meter.total == (7, 4)
    assert [message["type"][14:] for message in sent] == ["start", "body"] * 2
    assert asked == [[(b"a", b"b"), TELL_USAGE], [(b"a", b"b")]]


async def test_a_catalog_meters_where_a_request_has_a_meter_and_else_does_nothing(make_fake):
    fake = make_fake()
    catalog = Catalog([fake])
    assert (await catalog.resolve("fake")).runtime is fake
    meter = Meter()
    METER.set(meter)
    served = await catalog.resolve("fake")
    assert isinstance(served.runtime, MeteredRuntime)
    await served.runtime.describe()
    await served.runtime.check_health()
    assert meter.admitted == []
    await served.runtime.tokenize(Tokenize(model="fake", prompt="a"))
    await admit(TARGET)
    assert meter.admitted == [TARGET, TARGET]
