"""A T5 on the torch runtime: over TGIS's and Caikit's APIs it is what transformers makes of it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from rayserve_platform.pb import caikit_nlp_service_pb2 as caikit_pb
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.caikit_nlp_service_pb2_grpc import NlpServiceStub
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.e2e.tgis.conftest import LESSONS
from tests.models import Reference, Written

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("platform", ["haproxy"], indirect=True, scope="package"),
]

NEW = 24
PROMPTS = tuple(LESSONS)
GRPC: dict[str, Any] = {"metadata": (("application", "t5"), ("mm-model-id", "t5")), "timeout": 60}
RULES = pb.Parameters(
    stopping=pb.StoppingCriteria(max_new_tokens=NEW),
    response=pb.ResponseOptions(generated_tokens=True, token_logprobs=True),
)


@pytest.fixture(scope="module")
def reference(t5: Path) -> Reference:
    """transformers itself, over the same files."""
    return Reference(t5 / "artifacts")


@pytest.fixture(scope="module")
def expected(reference: Reference) -> dict[str, Written]:
    """What transformers' `generate` writes."""
    made = {text: reference.generate(text, do_sample=False, max_new_tokens=NEW) for text in PROMPTS}
    # Nothing that a model says which repeats itself, or never ends.
    assert all(len(set(written.ids)) > NEW / 4 for written in made.values())
    assert len({written.text for written in made.values()}) == len(PROMPTS)
    assert {ending(written) for written in made.values()} == {"EOS_TOKEN", "MAX_TOKENS"}
    return made


def ending(written: Written) -> str:
    """Return why it ends, in the words of both APIs."""
    return "EOS_TOKEN" if written.ids[-1] == 2 else "MAX_TOKENS"


def check_tokens(tokens: Any, written: Written, reference: Reference) -> None:
    """Compare what TGIS says of each token."""
    names = reference.tokenizer.convert_ids_to_tokens(written.ids)
    assert [token.text for token in tokens] == names
    assert [token.logprob for token in tokens] == pytest.approx(written.logprobs, abs=2e-4)


async def test_tgis_generates_as_transformers_does(
    platform: Any, reference: Reference, expected: dict[str, Written]
) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)
        requests = [pb.GenerationRequest(text=text) for text in PROMPTS]
        batch = pb.BatchedGenerationRequest(requests=requests, params=RULES)
        answers = (await stub.Generate(batch, **GRPC)).responses
        for answer, text in zip(answers, PROMPTS, strict=True):
            written = expected[text]
            assert answer.text == written.text
            assert answer.generated_token_count == len(written.ids)
            assert pb.StopReason.Name(answer.stop_reason) == ending(written)
            check_tokens(answer.tokens, written, reference)


async def test_tgis_streams_what_transformers_writes(
    platform: Any, reference: Reference, expected: dict[str, Written]
) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)

        async def stream(text: str) -> list[pb.GenerationResponse]:
            request = pb.GenerationRequest(text=text)
            asked = pb.SingleGenerationRequest(request=request, params=RULES)
            return [message async for message in stub.GenerateStream(asked, **GRPC)]

        streams = await asyncio.gather(*map(stream, PROMPTS))
    for (first, *pieces), text in zip(streams, PROMPTS, strict=True):
        written = expected[text]
        assert first.input_token_count == len(reference.tokenizer(text).input_ids)
        assert len(pieces) > 1
        assert "".join(piece.text for piece in pieces) == written.text
        assert pb.StopReason.Name(pieces[-1].stop_reason) == ending(written)
        assert pieces[-1].generated_token_count == len(written.ids)
        check_tokens([token for piece in pieces for token in piece.tokens], written, reference)


def test_caikits_rest_api_answers_as_transformers_does(
    platform: Any, client: httpx.Client, reference: Reference, expected: dict[str, Written]
) -> None:
    task = f"{platform.url}/t5/api/v1/task"
    for text, written in expected.items():
        body = {"model_id": "t5", "inputs": text, "parameters": {"max_new_tokens": NEW}}
        answer = client.post(f"{task}/text-generation", json=body).json()
        assert answer["generated_text"] == written.text
        assert answer["generated_tokens"] == len(written.ids)
        assert answer["finish_reason"] == ending(written)
        assert answer["input_token_count"] == len(reference.tokenizer(text).input_ids)
        streamed = client.post(f"{task}/server-streaming-text-generation", json=body)
        assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = streamed.text.splitlines()
        pieces = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert len(pieces) > 1
        assert "".join(piece["generated_text"] for piece in pieces) == written.text
        last = pieces[-1]["details"]
        assert (last["generated_tokens"], last["finish_reason"]) == (
            len(written.ids),
            ending(written),
        )


async def test_caikits_grpc_api_answers_as_transformers_does(
    platform: Any, expected: dict[str, Written]
) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        stub = NlpServiceStub(channel)
        for text, written in expected.items():
            asked = caikit_pb.TextGenerationTaskRequest(text=text, max_new_tokens=NEW)
            answer = await stub.TextGenerationTaskPredict(asked, **GRPC)
            assert answer.generated_text == written.text
            assert answer.generated_tokens == len(written.ids)
            kinds = answer.DESCRIPTOR.fields_by_name["finish_reason"].enum_type.values_by_number
            assert kinds[answer.finish_reason].name == ending(written)


def test_the_printed_curl_works(platform: Any) -> None:
    blocks = platform.output.split("\n\n")
    [line] = [block for block in blocks if block.startswith("  curl") and "/t5/" in block]
    assert json.loads(platform.run_line(line.strip()))["generated_text"]
