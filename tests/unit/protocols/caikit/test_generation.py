"""What is checked of a request for text, in which order. The texts are held by the replays."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import PlatformError, PromptTooLong
from rayserve_platform.core.messages import Chunk, PromptInfo, Stop, StopReason, Token
from rayserve_platform.pb.caikit_nlp_service_pb2 import TextGenerationTaskRequest
from rayserve_platform.pb.caikit_text_results_pb2 import FinishReason
from rayserve_platform.protocols.caikit import messages, render, tasks
from rayserve_platform.protocols.caikit.answer import Answer
from rayserve_platform.protocols.caikit.generation import (
    REASONS,
    ValueFault,
    check_generation,
    preserved_text,
    prompt_too_long,
    reason_of,
)
from rayserve_platform.protocols.tgis.translate import REASONS as TGIS_REASONS
from tests.contract.caikit.recordings import cases

LIMIT = 1024


def decay(start_index: int | None, factor: float | None) -> Any:
    return SimpleNamespace(start_index=start_index, decay_factor=factor)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"min_new_tokens": 2000}, "value check failed: Maximum new tokens ["),
    ({"decoding_method": "x"}, "value check failed: Decoding method [x]"),
    ({"temperature": 0.01}, "value check failed: temperature must be >= 0.05"),
    ({"top_p": 1.5}, "value check failed: top_p must be"),
    ({"top_k": -1}, "value check failed: top_k must be"),
    ({"typical_p": 1.5}, "value check failed: typical_p must be"),
    ({"repetition_penalty": -1.0}, "value check failed: repetition_penalty must be > 0.0"),
    (
        {"exponential_decay_length_penalty": decay(2, 20.0)},
        "value check failed: decay_factor in exponential_decay_length_penalty",
    ),
    ({"seed": 5}, "sampling parameters (temperature/top_k/top_p/typical_p/seed)"),
    ({"min_new_tokens": -5}, "Value out of range: -5"),
    ({"truncate_input_tokens": -1}, "Value out of range: -1"),
    ({"repetition_penalty": 2.5}, "repetition_penalty must be > 0.0 and <= 2.0"),
    ({"max_new_tokens": 1025}, "max_new_tokens must be <= 1024"),
    ({"stop_sequences": [""]}, "can specify at most 6 non-empty stop sequences"),
    ({"token_ranks": True}, "must request input and/or generated tokens"),
]
"""Arguments that are wrong by themselves, in the order in which the original finds it out."""


def refusal(arguments: dict[str, Any]) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        check_generation(arguments, LIMIT)
    return caught.value


@pytest.mark.parametrize("place", range(len(WRONG)), ids=lambda place: str(WRONG[place][1][:40]))
def test_of_several_faults_the_first_in_the_originals_order_is_told(place):
    arguments: dict[str, Any] = {}
    for more, _ in reversed(WRONG[place:]):
        arguments |= more
    assert refusal(arguments).message.startswith(WRONG[place][1])


@pytest.mark.parametrize("name", ["top_p", "typical_p", "temperature", "repetition_penalty"])
@pytest.mark.parametrize("number", [math.nan, -math.inf, math.inf])
def test_what_is_no_number_is_refused(name, number):
    if (name, number) == ("typical_p", -math.inf):
        return check_generation({name: number}, LIMIT)  # no lower bound, and no effect
    refusal({"decoding_method": "SAMPLING", name: number})
    return None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1.0, 1e300, 4294967.296])
def test_a_time_limit_that_is_no_time_is_refused(number):
    assert isinstance(refusal({"max_time": number}), ValueFault)


@pytest.mark.parametrize("penalty", [decay(None, None), decay(1, None), decay(-1, 2.0)])
def test_a_length_penalty_that_is_not_complete_is_refused(penalty):
    refusal({"exponential_decay_length_penalty": penalty})


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0, "typical_p": 0.5},
        {"exponential_decay_length_penalty": decay(None, 1.0)},
        {"max_new_tokens": 0},
        {"max_new_tokens": 1024, "min_new_tokens": 1024},
        {"repetition_penalty": 0.0, "max_time": 0.0, "truncate_input_tokens": 0},
        {"stop_sequences": ["é" * 240] * 6},
    ],
)
def test_what_the_original_takes_passes(arguments):
    check_generation(arguments, LIMIT)


def test_a_long_name_of_a_method_is_cut_since_details_travel_in_a_header():
    assert len(refusal({"decoding_method": "x" * 10**6}).message) < 400


def test_every_reason_has_the_name_that_it_has_in_tgis_and_in_caikits_messages():
    assert {reason: FinishReason.Value(name) for reason, name in REASONS.items()} == TGIS_REASONS
    assert reason_of(Chunk()) == "NOT_FINISHED"
    assert FinishReason.Value("NOT_FINISHED") == 0


def test_the_input_is_a_paragraph_of_its_own_before_what_an_encoder_decoder_writes():
    def card(*, encoder_decoder: bool) -> ModelCard:
        return ModelCard(
            id="m",
            root="m",
            runtime="fake",
            tasks=frozenset({Task.GENERATE}),
            encoder_decoder=encoder_decoder,
        )

    asked = {"text": "in", "preserve_input_text": True}
    assert preserved_text(asked, card(encoder_decoder=False)) == "in"
    assert preserved_text(asked, card(encoder_decoder=True)) == "in\n\n"
    assert preserved_text({"text": "in"}, card(encoder_decoder=True)) == ""


def test_a_prompt_too_long_is_told_in_tgis_words():
    error = prompt_too_long(PromptTooLong(limit=64, token_count=70))
    assert error.message == "input tokens (70) plus prefix length (0) must be < 64"
    error = prompt_too_long(PromptTooLong(limit=64, token_count=60, min_new_tokens=5))
    assert error.message == (
        "input tokens (60) plus prefix length (0) plus min_new_tokens (5) must be <= 64"
    )


def test_a_log_probability_that_is_no_number_is_null():
    [case] = [case for case in cases("tgis_fake_http") if case["id"] == "nan-logprob/unary"]
    recorded = case["response"]["body"]
    tokens = (
        Token(id=0, text="At", logprob=math.nan),
        Token(id=1, text="what", logprob=-8.5, rank=3),
    )
    chunk = Chunk(
        text="x",
        generated_tokens=1,
        prompt=PromptInfo(token_count=2, tokens=tokens),
        stop=Stop(reason=StopReason.EOS),
    )
    answer = Answer(
        task=tasks.TEXT_GENERATION,
        arguments={"text": "NAN"},
        module=tasks.TEXT_GENERATION_MODULE,
        result=chunk,
    )
    assert render.body(answer).decode() == recorded.replace("NaN", "null")
    assert json.loads(render.body(answer))
    message: Any = messages.message(answer, TextGenerationTaskRequest())
    assert math.isnan(message.input_tokens[0].logprob)


def test_a_text_that_ended_before_it_began_is_answered():
    stopped = Chunk(stop=Stop(reason=StopReason.TIME_LIMIT))
    answer = Answer(
        task=tasks.TEXT_GENERATION,
        arguments={"text": "x"},
        module=tasks.TEXT_GENERATION_MODULE,
        result=stopped,
    )
    assert json.loads(render.body(answer))["finish_reason"] == "TIME_LIMIT"
    message: Any = messages.message(answer, TextGenerationTaskRequest())
    assert message.finish_reason == FinishReason.Value("TIME_LIMIT")
    assert render.piece(stopped)["details"]["input_token_count"] == 0
