"""The clients of KServe's own package, in a process of their own. Prints what they got as JSON.

kserve_sdk.py URL HOST:PORT
"""

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
import numpy as np

# The package takes vLLM in where it finds it, and knows another version; no client needs it.
sys.modules["vllm"] = None  # type: ignore[assignment]

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig  # noqa: E402
from kserve.protocol.infer_type import RequestedOutput  # noqa: E402

X = np.array([[1, 2], [3, 4]], np.float32)
W = np.array([b"a", "bé".encode()], np.object_)


def request(*, binary: bool, name: str = "two") -> Any:
    x = InferInput("x", [2, 2], "FP32")
    w = InferInput("w", [2], "BYTES")
    x.set_data_from_numpy(X, binary_data=binary)
    w.set_data_from_numpy(W, binary_data=binary)
    outputs = [
        RequestedOutput(output, parameters={"binary_data": binary}) for output in ("out_x", "out_w")
    ]
    return InferRequest(name, [x, w], request_id="7", request_outputs=outputs)


def typed() -> Any:
    x = InferInput("x", [2, 2], "FP32", data=[1.0, 2.0, 3.0, 4.0])
    w = InferInput("w", [2], "BYTES", data=[b"a", "bé".encode()])
    return InferRequest("two", [x, w], request_id="7")


def told(answer: Any) -> dict[str, Any]:
    found = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    texts = [item if isinstance(item, str) else item.decode() for item in found["out_w"]]
    return {"id": answer.id, "out_x": found["out_x"], "out_w": texts}


async def refusal(call: Awaitable[Any]) -> list[Any]:
    try:
        await call
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, error.response.json()["error"]]
    except grpc.aio.AioRpcError as error:
        return [error.code().name, error.details()]
    return []


async def rest(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, "two"),
        "JSON": told(await client.infer(url, request(binary=False), model_name="two")),
        "binary": told(await client.infer(url, request(binary=True), model_name="two")),
        "unknown model": await refusal(client.infer(url, request(binary=True), model_name="nope")),
        "v1": await v1.infer(
            url,
            {"instances": [{"x": [1, 2], "w": "a"}, {"x": [3, 4], "w": "bé"}]},
            model_name="two",
        ),
    }


async def rpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model ready": await client.is_model_ready("two"),
            "other ready": await client.is_model_ready("nope"),
            "raw": told(await client.infer(request(binary=True))),
            "typed": told(await client.infer(typed())),
            "unknown model": await refusal(client.infer(request(binary=True, name="nope"))),
        }


async def main(url: str, address: str) -> None:
    got = {"rest": await rest(url), "grpc": await rpc(address)}
    print(json.dumps(got))  # noqa: T201  # its output is read by the test


asyncio.run(main(*sys.argv[1:]))
