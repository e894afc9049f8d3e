"""What a runtime behind a handle makes of what Serve raises."""

import asyncio

import pytest
from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Embed, Generate
from rayserve_platform.core.usage import USAGE_KEY
from rayserve_platform.serving.host import _fold
from rayserve_platform.serving.remote import RemoteRuntime
from rayserve_platform.serving.wire import HttpPart, as_value, or_raise, with_values

CARD = ModelCard(id="m", root="m", runtime="x", tasks=frozenset({Task.GENERATE}))
SECRET = "pid=4242 ip=10.0.0.7"


class Answers:
    """What a streaming call returns: items, then an error if there is one."""

    def __init__(self, items, error: BaseException | None = None) -> None:
        self._items = list(items)
        self._error = error
        self.cancelled = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._items:
            return self._items.pop(0)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Stands for a Serve handle: every method answers what the test has scripted."""

    def __init__(self, answer=None, *, error: BaseException | None = None, stream=None) -> None:
        self._answer = answer
        self._error = error
        self._stream = stream
        self.calls: list[tuple[str, tuple]] = []

    def options(self, *, stream: bool = False, **_) -> "Handle":
        assert stream == (self._stream is not None)
        return self

    def __getattr__(self, verb: str):
        handle = self

        class Method:
            def remote(self, *args):
                handle.calls.append((verb, args))
                return handle._stream if handle._stream is not None else handle._whole()

        return Method()

    async def _whole(self):
        if self._error is not None:
            raise self._error
        return self._answer


async def refusal(awaitable) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    assert "4242" not in caught.value.message
    return caught.value


async def test_an_application_that_is_not_deployed_is_unavailable_until_it_is():
    handles = [RayServeException("Application 'a' does not exist."), Handle((CARD,))]

    def make():
        made = handles.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    runtime = RemoteRuntime(make)
    error = await refusal(runtime.describe())
    assert (error.code, error.retry_after_s) == (Code.UNAVAILABLE, 5)
    assert await runtime.describe() == (CARD,)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (RayActorError(error_msg=SECRET), Code.UNAVAILABLE),
        (BackPressureError(num_queued_requests=3, max_queued_requests=2), Code.RESOURCE_EXHAUSTED),
    ],
)
async def test_what_serve_raises_becomes_ours_and_can_be_retried(raised, code):
    error = await refusal(RemoteRuntime(lambda: Handle(error=raised)).describe())
    assert error.code is code
    assert error.retry_after_s is not None


async def test_an_error_that_came_as_a_value_is_raised():
    refused = PlatformError(Code.INVALID_ARGUMENT, "no", param="input")
    runtime = RemoteRuntime(lambda: Handle(refused))
    assert await refusal(runtime.embed(Embed(model="m", inputs=("a",)))) is refused


async def test_a_call_that_its_caller_cancelled_is_a_cancelled_task():
    class Waiting(Handle):
        def _whole(self):
            async def wait():
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise TaskCancelledError from None

            return wait()

    call = asyncio.create_task(RemoteRuntime(Waiting).describe())
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_call_that_its_replica_cancelled_is_unavailable():
    runtime = RemoteRuntime(lambda: Handle(error=TaskCancelledError()))
    error = await refusal(runtime.describe())
    assert (error.code, error.retry_after_s) == (Code.UNAVAILABLE, 1.0)


async def test_a_stream_is_passed_on_and_its_error_raised_after_its_items():
    refused = PlatformError(Code.UNAVAILABLE, "gone")
    answers = Answers([["a"], ["b", "c"], refused])
    runtime = RemoteRuntime(lambda: Handle(stream=answers))
    stream = runtime.generate(Generate(model="m", prompt="p", stream=True))
    got: list = [await anext(stream), await anext(stream)]
    assert got == [["a"], ["b", "c"]]
    assert await refusal(anext(stream)) is refused
    assert answers.cancelled


@pytest.mark.parametrize(("read", "cancelled"), [(1, True), (3, False)])
async def test_leaving_a_stream_early_cancels_it_in_the_replica(read, cancelled):
    answers = Answers([["a"], ["b"]])
    runtime = RemoteRuntime(lambda: Handle(stream=answers))
    stream = runtime.generate(Generate(model="m", prompt="p", stream=True))
    got: list = [await anext(stream, None) for _ in range(read)]
    await stream.aclose()
    assert got == [["a"], ["b"], None][:read]
    assert answers.cancelled is cancelled


async def test_a_whole_answer_is_one_call():
    handle = Handle(["chunk"])
    request = Generate(model="m", prompt="p")
    got: list = [chunks async for chunks in RemoteRuntime(lambda: handle).generate(request)]
    assert got == [["chunk"]]
    assert handle.calls == [("generate_whole", (request,))]


async def test_http_of_the_engines_own_server_crosses_a_handle():
    parts = [HttpPart(status=200, headers=((b"a", b"b"),), body=b"x"), HttpPart(more=False)]
    handle = Handle(stream=Answers(parts))
    sent: list = []

    async def receive():
        return {"type": "http.request", "body": b"{}"}

    async def send(message):
        sent.append(message)

    scope = {"method": "POST", "path": "/p", "query_string": b"q", "headers": [(b"h", b"v")]}
    await RemoteRuntime(lambda: handle).native(scope, receive, send)
    assert sent == [
        {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]},
        {"type": "http.response.body", "body": b"x", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]
    ((verb, (call,)),) = handle.calls
    assert verb == "native"
    assert (call.method, call.path, call.query_string, call.body) == ("POST", "/p", b"q", b"{}")
    assert call.headers == ((b"h", b"v"),)


async def test_what_the_engines_server_tells_of_usage_crosses_a_handle():
    parts = [
        HttpPart(status=200, body=b"x", usage=(7, 1)),
        HttpPart(usage=(0, 3)),
        HttpPart(more=False),
    ]
    sent: list = []

    async def receive():
        return {"type": "http.request", "body": b"{}"}

    async def send(message):
        sent.append(message)

    scope = {"method": "POST", "path": "/p", "query_string": b"", "headers": []}
    await RemoteRuntime(lambda: Handle(stream=Answers(parts))).native(scope, receive, send)
    assert [message.get(USAGE_KEY) for message in sent] == [None, (7, 1), (0, 3), None]
    assert b"".join(message.get("body", b"") for message in sent) == b"x"


def test_messages_that_are_ready_together_tell_usage_together():
    messages: list = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"a", "more_body": True, USAGE_KEY: (7, 1)},
        {"type": "http.response.body", "body": b"b", "more_body": True, USAGE_KEY: (0, 2)},
        {"type": "http.response.body", "body": b"c", "more_body": False},
    ]
    assert _fold(messages) == HttpPart(status=200, body=b"abc", more=False, usage=(7, 3))
    assert _fold(messages[3:]).usage is None


async def test_errors_travel_as_values_and_unknown_ones_say_nothing():
    async def fails(error):
        raise error

    refused = PlatformError(Code.NOT_FOUND, "no")
    assert await as_value(fails(refused)) is refused
    unknown = await as_value(fails(RuntimeError(SECRET)))
    assert isinstance(unknown, PlatformError)
    assert (unknown.code, unknown.message) == (Code.INTERNAL, "internal error")
    with pytest.raises(asyncio.CancelledError):
        await as_value(fails(asyncio.CancelledError()))

    async def items():
        yield 1
        raise RuntimeError(SECRET)

    got = [item async for item in with_values(items())]
    assert got[0] == 1
    assert isinstance(got[1], PlatformError)
    assert got[1].message == "internal error"
    with pytest.raises(PlatformError):
        or_raise(got[1])


async def test_loading_and_unloading_reach_the_runtime_and_its_refusal_the_caller():
    handle = Handle(None)
    remote = RemoteRuntime(lambda: handle)
    await remote.load_model("m", {"config": "{}"})
    await remote.unload_model("m")
    assert handle.calls == [("load_model", ("m", {"config": "{}"})), ("unload_model", ("m",))]
    refused = PlatformError(Code.NOT_FOUND, "The repository has no model 'm'.")
    error = await refusal(RemoteRuntime(lambda: Handle(refused)).load_model("m", {}))
    assert error.code is Code.NOT_FOUND
