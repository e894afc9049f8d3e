"""What Caikit asks of the TGIS behind it, and what it makes of the answers.

The recorded Caikit stood before a scripted TGIS that answers each request with the request itself.
Here a runtime takes its place: it has to be asked for what TGIS would have been, as our own TGIS
ingress understands that request, and gives the same answer, which has to come out the same.
"""

import json
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chunk,
    Generate,
    PromptInfo,
    Stop,
    StopReason,
    Token,
    Tokenize,
    Tokens,
)
from rayserve_platform.pb.generation_pb2 import Parameters
from rayserve_platform.protocols.tgis.options import Options
from rayserve_platform.protocols.tgis.translate import to_generate
from tests.conftest import fake_runtime
from tests.contract.caikit.conftest import LLM, caikit
from tests.contract.caikit.recordings import cases
from tests.contract.caikit.replay import check, check_call, send

TGIS = Options(
    default_max_new_tokens=20,
    max_new_tokens=1024,
    default_include_stop_seqs=True,
    output_special_tokens=False,
    prompt_logprobs=True,
    max_prompts=1,
)
FAILURE = re.compile(r"(MID)?CODE:(\w+):(.*)")
CODES = {code.name for code in Code}
A = Token(id=0, text="A", logprob=-0.5, rank=1)
B = Token(id=1, text="B")
INPUT = Token(id=2, text="in", logprob=-1.5, rank=2)

CHECKED_BY_TGIS = (
    "max_new_tokens_huge",
    "logprobs_without_tokens",
    "stop_sequences_seven",
    "stop_sequences_empty_string",
    "repetition_penalty_too_high",
)
"""The scripted TGIS checks nothing; what the real one refuses is recorded with it."""
PRESERVED = ("preserve_input_text", "bool_as_string")
"""TGIS puts the input in front of the text, and the scripted one doesn't."""
TABLE = (
    "embedding",
    "embedding_tasks",
    "embedding_on_tg_model",
    "model_unknown",
    "ct_absent",
    "models_info",
)
"""Deliberate differences, of which the real TGIS's recordings have the like."""
OVERLOAD = ("RESOURCE_EXHAUSTED", "UNIMPLEMENTED")
"""Deliberate differences: told as 429 and as the caller's to change."""


def differs(case: dict[str, Any]) -> bool:
    """Say whether a case is not held to its recording."""
    name = case["id"].partition("/")[2]
    if case["id"].startswith("backend-errors/"):
        code = name.partition("_")[2]
        return code in OVERLOAD or code not in CODES  # no runtime of ours has the other codes
    return name in (*CHECKED_BY_TGIS, *PRESERVED, *TABLE) or case["id"] == "nan-logprob/unary"


def held(folder: str) -> list[dict[str, Any]]:
    return [case for case in cases(folder) if not differs(case)]


def echoed(recorded: Any) -> str:
    """Return the text that the scripted TGIS answered with, wherever it stands."""
    if isinstance(recorded, str):
        found = re.search(r'"generated_text": ("\{(?:[^"\\]|\\.)*")', recorded)
        return json.loads(found[1]) if found else ""
    return next((text for text in map(_echo, recorded or ()) if text), "")


def _echo(message: dict[str, Any]) -> str:
    text: str = message.get("generated_text", "")
    return text if text.startswith("{") else ""


class Scripted:
    """The scripted TGIS as a runtime; `asked` is the last request."""

    def __init__(self, echo: str) -> None:
        self._echo = echo
        self._fake = fake_runtime(id=LLM, tasks=("generate",))
        self.asked: Generate | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name)

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        self.asked = request
        middle, failure = self._failure(str(request.prompt))
        if failure is not None and not middle:
            raise failure
        if not request.stream:
            yield (
                Chunk(
                    text=self._echo,
                    tokens=(A, B),
                    generated_tokens=3,
                    prompt=PromptInfo(token_count=7, tokens=(INPUT,)),
                    stop=Stop(reason=StopReason.MAX_TOKENS),
                ),
            )
            return
        prompt = PromptInfo(token_count=7)
        yield (Chunk(text=self._echo, tokens=(A,), generated_tokens=1, prompt=prompt, seed=123),)
        if failure is not None:
            raise failure
        yield (Chunk(text=" end", generated_tokens=2, stop=Stop(reason=StopReason.EOS)),)

    async def tokenize(self, request: Tokenize) -> Tokens:
        _, failure = self._failure(str(request.prompt))
        if failure is not None:
            raise failure
        return Tokens(ids=tuple(range(42)), offsets=((0, 1),) * 42)

    def _failure(self, text: str) -> tuple[bool, PlatformError | None]:
        found = FAILURE.fullmatch(text)
        if found is None:
            return False, None
        code = Code[found[2]] if found[2] in CODES else Code.INTERNAL
        return bool(found[1]), PlatformError(code, found[3])


def asked_of_tgis(echo: str, asked: Generate) -> Generate:
    """Return what our TGIS ingress makes of the request that Caikit sent."""
    sent = json.loads(echo)["echo"]
    [item] = sent.get("requests", [sent.get("request")])
    return to_generate(
        item.get("text", ""),
        json_format.ParseDict(sent["params"], Parameters()),
        TGIS,
        model=LLM,
        adapter=None,
        stream="request" in sent,
        request_id=asked.request_id,
    )


def narrowed(value: Any) -> Any:
    """Return a request's fields with numbers as TGIS's messages hold them."""
    if isinstance(value, dict):
        return {key: narrowed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [narrowed(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value


async def ask_http(case: dict[str, Any]) -> Scripted:
    runtime = Scripted(echoed(case["response"]["body"]))
    async with caikit(runtime) as server:
        check(case, await send(server, case))
    return runtime


async def ask_grpc(case: dict[str, Any]) -> Scripted:
    runtime = Scripted(echoed(case["response"]["messages_json"]))
    async with caikit(runtime) as server:
        await check_call(server, case)
    return runtime


@pytest.mark.parametrize("case", held("tgis_fake_http"), ids=lambda case: case["id"])
async def test_an_http_request_asks_for_what_caikit_asks_of_tgis(case):
    runtime = await ask_http(case)
    echo = echoed(case["response"]["body"])
    assert (runtime.asked is not None) == bool(echo) or case["id"].startswith("backend-errors/")
    if echo:
        assert runtime.asked is not None
        expected = asked_of_tgis(echo, runtime.asked)
        assert narrowed(asdict(runtime.asked)) == narrowed(asdict(expected))


@pytest.mark.parametrize("case", held("tgis_fake_grpc"), ids=lambda case: case["id"])
async def test_a_call_asks_for_what_caikit_asks_of_tgis(case):
    runtime = await ask_grpc(case)
    echo = echoed(case["response"]["messages_json"])
    assert (runtime.asked is not None) == bool(echo) or case["id"].startswith("backend-errors/")
    if echo:
        assert runtime.asked is not None
        expected = asked_of_tgis(echo, runtime.asked)
        assert narrowed(asdict(runtime.asked)) == narrowed(asdict(expected))


async def test_no_case_is_left_out_that_would_be_the_same():
    same: list[str] = []
    for folder, ask in (("tgis_fake_http", ask_http), ("tgis_fake_grpc", ask_grpc)):
        for case in filter(differs, cases(folder)):
            code = case["id"].rpartition("_")[2]
            if case["id"].startswith("backend-errors/") and code not in CODES:
                continue  # nothing here could raise it
            try:
                await ask(case)
            except AssertionError:
                continue
            same.append(case["id"])
    assert same == []
