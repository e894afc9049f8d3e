"""The same class over the same seam: every topology answers alike, on both data planes."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

TOPOLOGIES = ("separate", "colocated", "gateway")
MODELS = {"separate": "separate", "colocated": "colocated", "gateway": "model-two"}
PROMPT = "a prompt"


def _body(topology: str, **more: Any) -> dict[str, Any]:
    return {
        "model": MODELS[topology],
        "prompt": PROMPT,
        "max_tokens": 20,
        "ignore_eos": True,
        **more,
    }


def _events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_streamed_text_equals_the_whole_one(
    platform: Any, client: httpx.Client, topology: str
) -> None:
    url = f"{platform.url}/{topology}/v1/completions"
    whole = client.post(url, json=_body(topology))
    assert whole.status_code == 200, whole.text
    streamed = client.post(
        url, json=_body(topology, stream=True, stream_options={"include_usage": True})
    )
    events = _events(streamed.text)
    text = "".join(event["choices"][0]["text"] for event in events if event["choices"])
    assert text == whole.json()["choices"][0]["text"]
    assert len(text) == 20
    assert events[-1]["usage"] == whole.json()["usage"]


def test_every_topology_says_the_same(platform: Any, client: httpx.Client) -> None:
    texts = set()
    for topology in TOPOLOGIES:
        answer = client.post(f"{platform.url}/{topology}/v1/completions", json=_body(topology))
        texts.add(answer.json()["choices"][0]["text"])
    assert len(texts) == 1


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_an_unknown_model_is_404_naming_the_served_ones(
    platform: Any, client: httpx.Client, topology: str
) -> None:
    url = f"{platform.url}/{topology}/v1/completions"
    answer = client.post(url, json={"model": "nope", "prompt": "x"})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "model_not_found"
    assert MODELS[topology] in error["message"]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_request_id_is_echoed_once(platform: Any, client: httpx.Client, topology: str) -> None:
    answer = client.get(f"{platform.url}/{topology}/v1/models", headers={"x-request-id": "my-id-1"})
    assert answer.headers.get_list("x-request-id") == ["my-id-1"]


def test_the_gateway_lists_all_models_and_needs_a_name(platform: Any, client: httpx.Client) -> None:
    models = client.get(f"{platform.url}/gateway/v1/models").json()["data"]
    assert {"model-one", "model-two"} <= {model["id"] for model in models}
    answer = client.post(f"{platform.url}/gateway/v1/completions", json={"prompt": "x"})
    assert answer.status_code == 400
    assert "model-two" in answer.json()["error"]["message"]


def test_the_gateway_knows_a_model_by_the_name_it_gave_it(
    platform: Any, client: httpx.Client
) -> None:
    url = f"{platform.url}/gateway/v1/completions"
    answer = client.post(url, json={"model": "one", "prompt": PROMPT, "max_tokens": 3})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "one"


def test_a_model_behind_the_gateway_cannot_be_reached_past_it(
    platform: Any, client: httpx.Client
) -> None:
    assert client.get(f"{platform.url}/model-one/v1/models").status_code == 404


@pytest.mark.parametrize("app", ["narrow", "tight"])
async def test_overload_is_429_in_openai_shape_with_retry_after(platform: Any, app: str) -> None:
    """`narrow`: Serve's own backpressure on the handle; `tight`: the ingress's own limit."""
    url = f"{platform.url}/{app}/v1/completions"
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"model": app, "prompt": "x", "max_tokens": 1}
        answers = await asyncio.gather(*(client.post(url, json=body) for _ in range(12)))
    codes = sorted({answer.status_code for answer in answers})
    assert codes == [200, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"


async def test_a_stream_that_is_left_makes_room_in_the_runtime(platform: Any) -> None:
    """`narrow` runs one request at a time: the next one would wait 200 s for the one left."""
    url = f"{platform.url}/narrow/v1/completions"
    body = {"model": "narrow", "prompt": "x", "ignore_eos": True}
    async with httpx.AsyncClient(timeout=60) as client:
        left = {**body, "max_tokens": 4000, "stream": True}
        async with client.stream("POST", url, json=left) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_lines():
                break
        answer = await client.post(url, json={**body, "max_tokens": 1})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_a_client_that_leaves_is_not_served_on(platform: Any, topology: str) -> None:
    url = f"{platform.url}/{topology}"
    async with httpx.AsyncClient(timeout=60) as client:
        body = _body(topology, max_tokens=4000, stream=True)
        async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_lines():
                break
        deadline = time.monotonic() + 10
        while True:
            metrics = (await client.get(f"{url}/metrics")).text
            line = next(
                line
                for line in metrics.splitlines()
                if line.startswith('rayserve_requests_in_progress{protocol="openai"}')
            )
            # The request for the metrics is the one in progress.
            if float(line.split()[-1]) <= 1:
                break
            assert time.monotonic() < deadline, line
            await asyncio.sleep(0.2)


class Traffic:
    """Clients that ask without a pause, and what went wrong."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self._url = url
        self._body = body
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.failures: list[str] = []
        self.served = 0

    async def _ask(self, client: httpx.AsyncClient, *, stream: bool) -> None:
        while not self._stop.is_set():
            try:
                answer = await client.post(self._url, json={**self._body, "stream": stream})
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code != 200 or (stream and "[DONE]" not in answer.text):
                self.failures.append(f"{answer.status_code} {answer.text[-300:]}")
            self.served += 1

    def start(self, client: httpx.AsyncClient, count: int) -> None:
        self._tasks = [
            asyncio.create_task(self._ask(client, stream=i % 2 == 0)) for i in range(count)
        ]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


async def _until_docs_are_gone(client: httpx.AsyncClient, url: str) -> None:
    deadline = time.monotonic() + 120
    while (await client.get(f"{url}/docs")).status_code != 404:
        assert time.monotonic() < deadline, "the new version does not serve"
        await asyncio.sleep(0.5)


async def test_a_redeploy_under_traffic_loses_no_request(platform: Any) -> None:
    """All topologies at once: starting their new replicas is what takes the time."""
    urls = {topology: f"{platform.url}/{topology}" for topology in TOPOLOGIES}
    traffic = {
        topology: Traffic(f"{url}/v1/completions", _body(topology, max_tokens=50))
        for topology, url in urls.items()
    }

    def change(content: dict[str, Any]) -> None:
        for app in content["applications"]:
            if app["name"] in (*TOPOLOGIES, *MODELS.values()):
                app["args"]["ingress"]["docs"] = False
                if "fake" in app["args"]:
                    app["args"]["fake"]["token_s"] = 0.021

    async with httpx.AsyncClient(timeout=120) as client:
        for one in traffic.values():
            one.start(client, 4)
        await asyncio.sleep(1)
        await asyncio.to_thread(platform.deploy, change)
        for url in urls.values():
            await _until_docs_are_gone(client, url)
        await asyncio.sleep(3)  # while the old replicas go away
        for one in traffic.values():
            await one.stop()
    for one in traffic.values():
        assert one.failures == []
        assert one.served > 10


def test_grpc_health_answers_a_stock_client(platform: Any) -> None:
    """With several routed applications Serve wants to be told which one."""
    script = (
        "import sys, grpc\n"
        "from grpc_health.v1 import health_pb2 as pb, health_pb2_grpc as rpc\n"
        "stub = rpc.HealthStub(grpc.insecure_channel(sys.argv[1]))\n"
        "metadata = [('application', 'separate')]\n"
        "print(stub.Check(pb.HealthCheckRequest(), metadata=metadata, timeout=20).status)\n"
        "watch = stub.Watch(pb.HealthCheckRequest(), metadata=metadata, timeout=20)\n"
        "print(next(iter(watch)).status)\n"
        "try:\n"
        "    stub.Check(pb.HealthCheckRequest(service='x'), metadata=metadata, timeout=20)\n"
        "except grpc.RpcError as error:\n"
        "    print(error.code().name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, platform.grpc],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.stdout.split() == ["1", "1", "NOT_FOUND"], done.stderr
