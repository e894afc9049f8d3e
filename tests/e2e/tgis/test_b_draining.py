"""Running streams are finished: when their application is replaced, and when everything stops.

The last tests of each platform: the second one ends it.
"""

import asyncio
import time
from typing import Any

import grpc
import pytest

from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TOPOLOGIES = ("separate", "colocated", "gateway")
PROMPT = "Once"
NEW_LIMIT = 4000
DEADLINE_S = 120


def asked(new: int) -> pb.SingleGenerationRequest:
    """Ask for exactly so many tokens."""
    rules = pb.StoppingCriteria(max_new_tokens=new, min_new_tokens=new)
    return pb.SingleGenerationRequest(
        request=pb.GenerationRequest(text=PROMPT), params=pb.Parameters(stopping=rules)
    )


def to(app: str) -> dict[str, Any]:
    return {"metadata": (("application", app),), "timeout": DEADLINE_S}


async def written(stub: GenerationServiceStub, app: str, new: int) -> str:
    """Return what one call for the whole answer brings."""
    one = asked(new)
    batch = pb.BatchedGenerationRequest(requests=[one.request], params=one.params)
    text: str = (await stub.Generate(batch, **to(app))).responses[0].text
    return text


async def streamed(messages: Any, new: int) -> str:
    """Return a stream's text; its last message must tell that it is whole."""
    pieces = [message async for message in messages]
    assert pieces[-1].generated_token_count == new
    assert pieces[-1].stop_reason == pb.MAX_TOKENS
    return "".join(piece.text for piece in pieces)


async def serves_new_version(stub: GenerationServiceStub) -> bool:
    """Whether the model's changed length is told."""
    request = pb.GenerationRequest(text="a" * 5000)
    try:
        await stub.Generate(pb.BatchedGenerationRequest(requests=[request]), **to("separate"))
    except grpc.aio.AioRpcError as error:
        return f"must be < {NEW_LIMIT}" in (error.details() or "")
    raise AssertionError("a text that is too long was taken")


async def test_streams_are_finished_while_their_application_is_replaced(platform: Any) -> None:
    """Each client opens the next stream as its last one ends, so that the change meets some."""
    replaced = asyncio.Event()
    failures: list[str] = []
    new = 200

    async def traffic(stub: GenerationServiceStub, expected: str) -> None:
        while not replaced.is_set():
            try:
                text = await streamed(stub.GenerateStream(asked(new), **to("separate")), new)
                assert text == expected
            except (grpc.aio.AioRpcError, AssertionError, IndexError) as error:
                failures.append(repr(error))

    def change(content: dict[str, Any]) -> None:
        for app in content["applications"]:
            if app["name"] == "separate":
                app["args"]["ingress"]["docs"] = False  # replaces the ingress as well
                app["args"]["fake"]["max_model_len"] = NEW_LIMIT

    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)
        expected = await written(stub, "separate", new)
        clients = [asyncio.create_task(traffic(stub, expected)) for _ in range(4)]
        await asyncio.to_thread(platform.deploy, change)
        deadline = time.monotonic() + DEADLINE_S
        while not await serves_new_version(stub):
            assert time.monotonic() < deadline, "the new version does not serve"
            await asyncio.sleep(0.5)
        replaced.set()
        await asyncio.gather(*clients)
    assert failures == []


async def test_sigterm_lets_calls_finish_and_then_stops_everything(platform: Any) -> None:
    new = 400
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)
        whole = asyncio.create_task(written(stub, "separate", new))
        streams = [stub.GenerateStream(asked(new), **to(app)) for app in TOPOLOGIES]
        for stream in streams:
            await anext(aiter(stream))
        platform.process.terminate()
        texts = await asyncio.gather(*(streamed(stream, new) for stream in streams))
        assert texts == [await whole] * len(TOPOLOGIES)
    assert len(texts[0]) == new
    assert await asyncio.to_thread(platform.process.wait, DEADLINE_S) == 0
    assert platform.output.rstrip().endswith("Stopped.")
    deadline = time.monotonic() + 30
    while platform.processes():
        assert time.monotonic() < deadline, platform.processes()
        await asyncio.sleep(0.2)
