"""tritonclient over gRPC, in a process of its own. Prints what it got as JSON.

triton_grpc.py HOST:PORT
"""

import asyncio
import json
import queue
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

X = np.array([[1, 2], [3, 4]], np.float32)
W = np.array([b"a", "bé".encode()], np.object_)
WAIT_S = 60


def inputs() -> list[Any]:
    x = triton.InferInput("x", [2, 2], "FP32")
    x.set_data_from_numpy(X)
    w = triton.InferInput("w", [2], "BYTES")
    w.set_data_from_numpy(W)
    return [x, w]


def text(words: str) -> list[Any]:
    given = triton.InferInput("text_input", [1], "BYTES")
    given.set_data_from_numpy(np.array([words.encode()], np.object_))
    return [given]


def told(result: Any) -> dict[str, Any]:
    head = result.get_response()
    return {
        "id": head.id,
        "version": head.model_version,
        "out_x": result.as_numpy("out_x").tolist(),
        "out_w": [item.decode() for item in result.as_numpy("out_w")],
    }


def part(result: Any) -> dict[str, Any]:
    return {
        "text": result.as_numpy("text_output")[0].decode(),
        "final": result.get_response().parameters["triton_final_response"].bool_param,
    }


def refusal(call: Any) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return []


def inferred(client: Any) -> dict[str, Any]:
    answered: queue.Queue[Any] = queue.Queue()
    client.async_infer("two", inputs(), callback=lambda result, error: answered.put(result))
    outputs = [triton.InferRequestedOutput(name) for name in ("out_x", "out_w")]
    return {
        "plain": told(client.infer("two", inputs(), request_id="7", outputs=outputs)),
        "gzip": told(
            client.infer("two", inputs(), model_version="1", compression_algorithm="gzip")
        ),
        "parameters": told(client.infer("two", inputs(), parameters={"a": 1, "b": True, "c": "d"})),
        "async": told(answered.get(timeout=WAIT_S)),
    }


def described(client: Any) -> dict[str, Any]:
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("two"),
        "other version ready": client.is_model_ready("two", "7"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata("two", as_json=True),
    }


def repository(client: Any) -> list[Any]:
    index = client.get_model_repository_index(as_json=True)
    client.unload_model("two")
    unloaded = client.is_model_ready("two")
    client.load_model("two", config="{}", files={"file:1/model.onnx": b"\0"})
    return [index, unloaded, client.is_model_ready("two")]


def refused(client: Any) -> dict[str, Any]:
    wrong = triton.InferInput("x", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    return {
        "unknown model": refusal(lambda: client.infer("nope", inputs())),
        "wrong shape": refusal(lambda: client.infer("two", [wrong, inputs()[1]])),
        "statistics": refusal(client.get_inference_statistics),
    }


def streamed(client: Any) -> dict[str, Any]:
    """Send tensors, a mistake, and a text on one stream."""
    answered: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answered.put((result, error)))
    client.async_stream_infer("two", inputs(), request_id="1")
    client.async_stream_infer("nope", inputs(), request_id="2")
    client.async_stream_infer(
        "llm",
        text("Once"),
        request_id="3",
        parameters={"max_tokens": 5},
        enable_empty_final_response=True,
    )
    tensors, _ = answered.get(timeout=WAIT_S)
    _, error = answered.get(timeout=WAIT_S)
    parts: list[dict[str, Any]] = []
    while not parts or not parts[-1]["final"]:
        result, failed = answered.get(timeout=WAIT_S)
        assert failed is None, failed
        parts.append(part(result))
    client.stop_stream()
    return {"tensors": told(tensors), "error": str(error), "parts": parts}


async def asynchronous(address: str) -> dict[str, Any]:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "llm", "inputs": text("Once"), "parameters": {"max_tokens": 5}}

    async with triton_aio.InferenceServerClient(address) as client:
        answers = await asyncio.gather(*(client.infer("two", inputs()) for _ in range(3)))
        parts: list[dict[str, Any]] = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            parts.append(part(result))
        return {
            "live": await client.is_server_live(),
            "answers": [told(answer) for answer in answers],
            "parts": parts,
        }


def main(address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        got = {
            "infer": inferred(client),
            "described": described(client),
            "refused": refused(client),
            "stream": streamed(client),
            "whole": client.infer("llm", text("Once"), parameters={"max_tokens": 5})
            .as_numpy("text_output")[0]
            .decode(),
            "repository": repository(client),
            "aio": asyncio.run(asynchronous(address)),
        }
    print(json.dumps(got))  # noqa: T201  # its output is read by the test


main(*sys.argv[1:])
