"""tritonclient over HTTP, in a process of its own. Prints what it got as JSON.

triton_http.py HOST:PORT
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

X = np.array([[1, 2], [3, 4]], np.float32)
W = np.array([b"a", "bé".encode()], np.object_)


def inputs(*, binary: bool) -> list[Any]:
    x = triton.InferInput("x", [2, 2], "FP32")
    x.set_data_from_numpy(X, binary_data=binary)
    w = triton.InferInput("w", [2], "BYTES")
    w.set_data_from_numpy(W, binary_data=binary)
    return [x, w]


def outputs(*, binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in ("out_x", "out_w")]


def told(result: Any) -> dict[str, Any]:
    head = result.get_response()
    texts = [text if isinstance(text, str) else text.decode() for text in result.as_numpy("out_w")]
    return {
        "id": head.get("id"),
        "version": head["model_version"],
        "binary": "data" not in head["outputs"][0],
        "out_x": result.as_numpy("out_x").tolist(),
        "out_w": texts,
    }


def refusal(call: Any) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    return []


def inferred(client: Any) -> dict[str, Any]:
    got = {
        f"{given} in, {wanted} out": told(
            client.infer(
                "two",
                inputs(binary=given == "binary"),
                outputs=outputs(binary=wanted == "binary"),
                request_id="7",
            )
        )
        for given in ("JSON", "binary")
        for wanted in ("JSON", "binary")
    }
    got["nothing asked"] = told(client.infer("two", inputs(binary=True), model_version="1"))
    for coding in ("gzip", "deflate"):
        answer = client.infer(
            "two",
            inputs(binary=True),
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        got[coding] = told(answer)
    got["async"] = told(client.async_infer("two", inputs(binary=True)).get_result())
    return got


def described(client: Any) -> dict[str, Any]:
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("two"),
        "other version ready": client.is_model_ready("two", "7"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("two"),
    }


def repository(client: Any) -> list[Any]:
    index = client.get_model_repository_index()
    client.unload_model("two")
    unloaded = client.is_model_ready("two")
    client.load_model("two", config="{}", files={"file:1/model.onnx": b"\0"})
    return [index, unloaded, client.is_model_ready("two")]


def refused(client: Any) -> dict[str, Any]:
    wrong = triton.InferInput("x", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    return {
        "unknown model": refusal(lambda: client.infer("nope", inputs(binary=True))),
        "wrong shape": refusal(lambda: client.infer("two", [wrong, inputs(binary=True)[1]])),
        "statistics": refusal(client.get_inference_statistics),
    }


async def asynchronous(address: str) -> dict[str, Any]:
    async with triton_aio.InferenceServerClient(address) as client:
        answers = await asyncio.gather(
            client.infer("two", inputs(binary=True)),
            client.infer("two", inputs(binary=False), outputs=outputs(binary=False)),
        )
        return {
            "live": await client.is_server_live(),
            "model": await client.get_model_metadata("two"),
            "answers": [told(answer) for answer in answers],
        }


def main(address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=2) as client:
        got = {
            "infer": inferred(client),
            "described": described(client),
            "refused": refused(client),
            "repository": repository(client),
            "aio": asyncio.run(asynchronous(address)),
        }
    print(json.dumps(got))  # noqa: T201  # its output is read by the test


main(*sys.argv[1:])
