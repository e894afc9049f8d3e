"""What an answer costs that is wanted whole, and left before its end."""

import asyncio

import pytest

from tests.contract.quotas.requests import send

WHOLE = [
    *(("http", name) for name in ("openai chat", "openai completion", "caikit text")),
    ("http", "kserve generate"),
    *(("rpc", name) for name in ("caikit text", "tgis batch")),
]


@pytest.mark.parametrize(("transport", "name"), WHOLE)
async def test_an_answer_that_is_left_has_cost_what_was_written(serve, eventually, transport, name):
    server = await serve({"tokens": ["1000000/day"]}, engine={"token_s": 600})
    texts = 2 if name in ("openai completion", "tgis batch") else 1
    asking = asyncio.create_task(send(server, transport, name))
    await eventually(lambda: server.alpha.running == texts)
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await eventually(lambda: server.alpha.running == 0)
    await eventually(lambda: len(server.audit()) == 1)
    (line,) = server.audit()
    assert line["generated_tokens"] == texts
    assert line["prompt_tokens"] > 0
