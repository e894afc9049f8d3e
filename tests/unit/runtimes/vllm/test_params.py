"""`Generate` as vLLM's `SamplingParams`, field by field."""

import dataclasses
from typing import Any

import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Details, Generate, Guided, Sampling, Stopping
from rayserve_platform.runtimes.vllm.logits import Length, Typical, length_of, typical_of
from rayserve_platform.runtimes.vllm.params import to_sampling_params


def translated(defaults=None, *, max_tokens: int = 9, **fields) -> SamplingParams:
    request = Generate(**{"model": "m", "prompt": "p", **fields})
    return to_sampling_params(request, max_tokens=max_tokens, defaults=defaults or {})


SAMPLING: dict[str, tuple[Any, str, Any]] = {
    "temperature": (0.5, "temperature", 0.5),
    "top_k": (7, "top_k", 7),
    "top_p": (0.9, "top_p", 0.9),
    "min_p": (0.1, "min_p", 0.1),
    "seed": (42, "seed", 42),
    "frequency_penalty": (0.5, "frequency_penalty", 0.5),
    "presence_penalty": (-0.5, "presence_penalty", -0.5),
    "repetition_penalty": (1.2, "repetition_penalty", 1.2),
    "logit_bias": ({5: 1.5}, "logit_bias", {5: 1.5}),
}
STOPPING: dict[str, tuple[Any, str, Any]] = {
    "min_new_tokens": (3, "min_tokens", 3),
    "stop_sequences": (("a", "b"), "stop", ["a", "b"]),
    "stop_token_ids": ((1, 2), "stop_token_ids", [1, 2]),
    "include_stop_sequence": (True, "include_stop_str_in_output", True),
    "ignore_eos": (True, "ignore_eos", True),
}
PROCESSED: dict[str, Any] = {"typical_p": 0.5, "length_penalty": (3, 1.1)}
ELSEWHERE = {"max_new_tokens", "time_limit_s"}


def test_every_field_of_sampling_and_stopping_is_tested_here():
    assert {f.name for f in dataclasses.fields(Sampling)} == set(SAMPLING) | set(PROCESSED)
    assert {f.name for f in dataclasses.fields(Stopping)} == set(STOPPING) | ELSEWHERE


@pytest.mark.parametrize("field", [*SAMPLING, *STOPPING])
def test_each_field_arrives_and_is_vllms_own_choice_otherwise(field):
    sent, theirs, expected = (SAMPLING | STOPPING)[field]
    group = (
        {"sampling": Sampling(**{field: sent})}
        if field in SAMPLING
        else {"stopping": Stopping(**{field: sent})}
    )
    assert getattr(translated(**group), theirs) == expected
    assert getattr(translated(), theirs) == getattr(SamplingParams(), theirs) != expected


@pytest.mark.parametrize("field", PROCESSED)
def test_what_an_engine_without_our_processors_cannot_do_is_refused_by_name(field):
    request = Generate(model="m", prompt="p", sampling=Sampling(**{field: PROCESSED[field]}))
    with pytest.raises(PlatformError) as caught:
        to_sampling_params(request, max_tokens=9, defaults={}, processors=False)
    assert (caught.value.code, caught.value.param) == (Code.UNIMPLEMENTED, field)
    assert f"'{field}'" in caught.value.message


def test_our_processors_are_told_what_they_need_and_nothing_otherwise():
    assert translated(sampling=Sampling(top_k=7)).extra_args is None
    length = translated(sampling=Sampling(length_penalty=(3, 1.5), top_k=7))
    assert (length_of(length), typical_of(length)) == (Length(3, 1.5), None)
    assert length.top_k == 7


def test_top_k_and_top_p_come_before_typical_p_and_so_from_the_same_hand():
    params = translated(sampling=Sampling(typical_p=0.5, top_k=7, top_p=0.75))
    assert typical_of(params) == Typical(0.5, 7, 0.75)
    assert (params.top_k, params.top_p) == (0, 1.0)
    alone = translated({"top_k": 4}, sampling=Sampling(typical_p=0.5, top_k=-1))
    assert typical_of(alone) == Typical(0.5)


def test_the_limit_is_the_one_that_fits_the_models_length():
    assert translated(max_tokens=5, stopping=Stopping(max_new_tokens=99)).max_tokens == 5
    assert translated({"max_tokens": 3}, max_tokens=5).max_tokens == 5


def test_the_models_own_defaults_apply_where_nothing_is_said():
    defaults = {"temperature": 0.2, "top_k": 5, "repetition_penalty": 1.3}
    params = translated(defaults, sampling=Sampling(temperature=0.0))
    assert (params.temperature, params.repetition_penalty) == (0.0, 1.3)
    assert translated(defaults).temperature == 0.2
    assert translated(defaults).top_k == 5
    assert defaults == {"temperature": 0.2, "top_k": 5, "repetition_penalty": 1.3}


@pytest.mark.parametrize(
    ("stream", "kind"),
    [(False, RequestOutputKind.FINAL_ONLY), (True, RequestOutputKind.DELTA)],
)
def test_outputs_come_as_they_are_needed(stream, kind):
    assert translated(stream=stream).output_kind is kind


def test_n_and_special_tokens_arrive():
    params = translated(n=3, skip_special_tokens=False)
    assert (params.n, params.skip_special_tokens) == (3, False)
    assert (translated().n, translated().skip_special_tokens) == (1, True)


@pytest.mark.parametrize(
    ("details", "logprobs", "prompt_logprobs"),
    [
        (Details(), None, None),
        (Details(input_text=True), None, None),
        (Details(generated_tokens=True), None, None),
        (Details(generated_tokens=True, logprobs=True), 0, None),
        (Details(generated_tokens=True, ranks=True), 0, None),
        (Details(generated_tokens=True, top_n_tokens=4), 4, None),
        (Details(input_tokens=True), None, None),
        (Details(input_tokens=True, logprobs=True), None, 0),
        (Details(input_tokens=True, generated_tokens=True, top_n_tokens=2), 2, 2),
        (Details(logprobs=True, top_n_tokens=2), None, None),
        (Details(input_tokens=True, ranks=True, input_token_details=False), None, None),
    ],
)
def test_logprobs_are_asked_for_where_tokens_are_wanted_with_them(
    details, logprobs, prompt_logprobs
):
    params = translated(details=details)
    assert (params.logprobs, params.prompt_logprobs) == (logprobs, prompt_logprobs)


@pytest.mark.parametrize(
    ("guided", "name", "expected"),
    [
        (Guided(kind="json"), "json_object", True),
        (Guided(kind="json_schema", value='{"type": "object"}'), "json", '{"type": "object"}'),
        (Guided(kind="regex", value="a+"), "regex", "a+"),
        (Guided(kind="choice", value=("a", "b")), "choice", ["a", "b"]),
        (Guided(kind="grammar", value="root ::= x"), "grammar", "root ::= x"),
    ],
)
def test_each_guide_becomes_vllms_own(guided, name, expected):
    found = translated(guided=guided).structured_outputs
    assert found is not None
    assert getattr(found, name) == expected
    others = {"json", "regex", "choice", "grammar", "json_object"} - {name}
    assert [getattr(found, other) for other in others] == [None] * 4


def test_no_guide_is_no_structured_output():
    assert translated().structured_outputs is None
