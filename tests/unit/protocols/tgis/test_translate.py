"""TGIS's messages as the vocabulary, and the vocabulary as TGIS's messages."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import json_format

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.messages import (
    Chunk,
    Details,
    Guided,
    PromptInfo,
    Sampling,
    Stop,
    Stopping,
    StopReason,
    Token,
    Tokenize,
    Tokens,
)
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.protocols.tgis.translate import (
    REASONS,
    Responses,
    adapter_of,
    from_card,
    from_tokens,
    to_generate,
    to_tokenize,
)

CARD = ModelCard(
    id="m", root="/m", runtime="fake", tasks=frozenset({Task.GENERATE}), max_model_len=99
)
NEUTRAL: dict[str, Any] = {"repetition_penalty": 1.0, "min_p": 0.0, "top_k": 0, "top_p": 1.0}
"""Said out loud, so that the model's own defaults don't apply."""


@pytest.fixture
def asked(make_options, parameters):
    """Translates parameters given as JSON fields."""

    def translate(options=None, **fields: Any):
        own: dict[str, Any] = {"model": "m", "adapter": None, "stream": False, "request_id": "r"}
        return to_generate("Why?", parameters(**fields), options or make_options(), **own)

    return translate


def test_a_request_without_parameters_is_greedy_and_short(asked):
    found = asked()
    assert (found.model, found.prompt, found.request_id) == ("m", "Why?", "r")
    assert found.sampling == Sampling(temperature=0.0, **NEUTRAL)
    assert found.stopping == Stopping(max_new_tokens=20, include_stop_sequence=True)
    assert found.details == Details()
    assert (found.guided, found.truncate_prompt_tokens) == (None, None)
    assert found.skip_special_tokens is True


def test_greedy_requests_leave_sampling_out(asked):
    sampling = {"temperature": 1.5, "topK": 3, "topP": 0.5, "typicalP": 0.5, "seed": 7}
    assert asked(sampling=sampling).sampling == Sampling(temperature=0.0, **NEUTRAL)


def test_sampling_arrives(asked):
    sampling = {
        "temperature": 0.5,
        "topK": 3,
        "topP": 0.25,
        "typicalP": 0.75,
        "seed": str(2**64 - 1),
    }
    assert asked(method="SAMPLE", sampling=sampling).sampling == Sampling(
        **NEUTRAL | {"top_k": 3, "top_p": 0.25}, temperature=0.5, typical_p=0.75, seed=2**64 - 1
    )


@pytest.mark.parametrize("typical", [0, 1.0, -3])
def test_sampling_without_values_is_over_the_whole_distribution(asked, typical):
    found = asked(method="SAMPLE", sampling={"typicalP": typical}).sampling
    assert found == Sampling(temperature=1.0, **NEUTRAL)


def test_a_temperature_of_zero_is_greedy_and_has_no_seed(asked):
    found = asked(method="SAMPLE", sampling={"temperature": 0, "seed": 3}).sampling
    assert found == Sampling(temperature=0.0, **NEUTRAL)


def test_penalties_are_for_greedy_requests_too(asked):
    decoding = {"repetitionPenalty": 1.5, "lengthPenalty": {"startIndex": 4, "decayFactor": 1.25}}
    found = asked(decoding=decoding).sampling
    assert (found.repetition_penalty, found.length_penalty) == (1.5, (4, 1.25))
    none = asked(decoding={"lengthPenalty": {"startIndex": 4, "decayFactor": 1.0}}).sampling
    assert none.length_penalty is None


def test_stopping_arrives(asked):
    stopping = {
        "maxNewTokens": 9,
        "minNewTokens": 3,
        "timeLimitMillis": 1500,
        "stopSequences": ["a", "b"],
        "includeStopSequence": False,
    }
    assert asked(stopping=stopping).stopping == Stopping(
        max_new_tokens=9,
        min_new_tokens=3,
        time_limit_s=1.5,
        stop_sequences=("a", "b"),
        include_stop_sequence=False,
    )


def test_the_operators_choices_apply_where_nothing_is_said(asked, make_options):
    options = make_options(
        default_max_new_tokens=None,
        max_new_tokens=50,
        default_include_stop_seqs=False,
        output_special_tokens=True,
        prompt_logprobs=False,
    )
    found = asked(options)
    assert (found.stopping.max_new_tokens, found.stopping.include_stop_sequence) == (50, False)
    assert found.skip_special_tokens is False
    assert found.details.input_token_details is False
    said = asked(options, stopping={"includeStopSequence": True, "maxNewTokens": 5})
    assert (said.stopping.max_new_tokens, said.stopping.include_stop_sequence) == (5, True)


def test_details_arrive(asked):
    response = {
        "inputTokens": True,
        "generatedTokens": True,
        "tokenLogprobs": True,
        "tokenRanks": True,
        "topNTokens": 3,
    }
    assert asked(response=response).details == Details(
        input_tokens=True, generated_tokens=True, logprobs=True, ranks=True, top_n_tokens=3
    )


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"format": "JSON"}, Guided(kind="json")),
        ({"jsonSchema": "{}"}, Guided(kind="json_schema", value="{}")),
        ({"regex": "a+"}, Guided(kind="regex", value="a+")),
        ({"choice": {"choices": ["a", "b"]}}, Guided(kind="choice", value=("a", "b"))),
        ({"grammar": "root ::= x"}, Guided(kind="grammar", value="root ::= x")),
    ],
)
def test_each_guide_arrives(asked, sent, expected):
    assert asked(decoding=sent).guided == expected


def test_truncation_arrives(asked):
    assert asked(truncateInputTokens=7).truncate_prompt_tokens == 7


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"adapter_id": "a"}, "a"),
        ({"prefix_id": "p"}, "p"),
        ({"adapter_id": "a", "prefix_id": "p"}, "a"),
        ({"adapter_id": "", "prefix_id": "p"}, "p"),
    ],
)
def test_an_adapter_has_two_names_and_the_newer_wins(fields, expected):
    assert adapter_of(pb.BatchedGenerationRequest(**fields)) == expected
    assert adapter_of(pb.BatchedTokenizeRequest(**fields)) == expected


# ---------------------------------------------------------------- answers

TOKEN = Token(
    id=1,
    text="Ġa",
    logprob=-0.5,
    rank=2,
    top=(Token(id=2, text="b", logprob=-0.25, rank=1), Token(id=1, text="Ġa", logprob=-0.5)),
)
CHUNK = Chunk(
    text=" a",
    tokens=(TOKEN,),
    generated_tokens=4,
    prompt=PromptInfo(token_count=3, tokens=(Token(id=5, text="W"),)),
    seed=7,
    stop=Stop(reason=StopReason.STOP_SEQUENCE, sequence="a"),
)
TOLD = {"text": "Ġa", "logprob": -0.5, "rank": 2}
TOP = [{"text": "b", "logprob": -0.25}, {"text": "Ġa", "logprob": -0.5}]


@pytest.fixture
def responses(make_options, parameters):
    """Makes the answers to a request of these parameters."""

    def make(options=None, card=CARD, **fields: Any) -> Responses:
        return Responses(parameters(**fields), options or make_options(), "Why?", card)

    return make


def decoded(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(message)
    return found


def test_a_whole_answer_has_everything(responses):
    answer = responses(response={"tokenLogprobs": True}).whole(CHUNK)
    assert decoded(answer) == {
        "inputTokenCount": 3,
        "generatedTokenCount": 4,
        "text": " a",
        "tokens": [TOLD | {"topTokens": TOP}],
        "inputTokens": [{"text": "W"}],
        "seed": "7",
        "stopReason": "STOP_SEQUENCE",
        "stopSequence": "a",
    }


def test_a_stream_tells_of_the_input_first_and_then_of_what_is_new(responses):
    making = responses(response={"inputText": True, "tokenLogprobs": True})
    assert decoded(making.first(CHUNK)) == {
        "inputTokenCount": 3,
        "text": "Why?",
        "inputTokens": [{"text": "W"}],
        "seed": "7",
    }
    assert decoded(making.piece(CHUNK)) == {
        "generatedTokenCount": 4,
        "text": " a",
        "tokens": [TOLD | {"topTokens": TOP}],
        "stopReason": "STOP_SEQUENCE",
        "stopSequence": "a",
    }
    assert decoded(making.piece(Chunk(generated_tokens=2))) == {"generatedTokenCount": 2}


def test_top_tokens_have_log_probabilities_only_where_tokens_have(responses):
    answer = responses().whole(CHUNK)
    assert [decoded(top) for top in answer.tokens[0].top_tokens] == [{"text": "b"}, {"text": "Ġa"}]


@pytest.mark.parametrize("text", ["", " a"])
def test_the_input_stands_in_front_where_asked_for(responses, text):
    chunk = replace(CHUNK, text=text)
    assert responses(response={"inputText": True}).whole(chunk).text == "Why?" + text
    apart = replace(CARD, encoder_decoder=True)
    assert responses(card=apart, response={"inputText": True}).whole(chunk).text == (
        "Why?\n\n" + text
    )


def test_every_reason_to_stop_has_a_name(responses):
    assert set(REASONS) == set(StopReason)
    for reason, theirs in REASONS.items():
        chunk = replace(CHUNK, stop=Stop(reason=reason))
        assert responses().piece(chunk).stop_reason == theirs
        assert responses().piece(chunk).stop_sequence == ""


def test_the_servers_limit_is_not_the_requests(responses, make_options):
    chunk = replace(CHUNK, stop=Stop(reason=StopReason.MAX_TOKENS))
    adapters = make_options(default_max_new_tokens=None)
    assert responses(adapters).piece(chunk).stop_reason == pb.TOKEN_LIMIT
    said = responses(adapters, stopping={"maxNewTokens": 5})
    assert said.piece(chunk).stop_reason == pb.MAX_TOKENS
    assert responses(make_options()).piece(chunk).stop_reason == pb.MAX_TOKENS
    eos = replace(CHUNK, stop=Stop(reason=StopReason.EOS))
    assert responses(adapters).piece(eos).stop_reason == pb.EOS_TOKEN


def test_tokenizing_is_translated_both_ways():
    request = pb.BatchedTokenizeRequest(truncate_input_tokens=2, adapter_id="a")
    assert to_tokenize("ab", request, model="m", request_id="r") == Tokenize(
        model="m", prompt="ab", truncate_tokens=2, adapter="a", request_id="r"
    )
    tokens = Tokens(ids=(1, 2), texts=("x", "y"), offsets=((0, 1), (1, 4)))
    assert decoded(from_tokens(tokens, request)) == {"tokenCount": 2}
    request.return_tokens = request.return_offsets = True
    assert decoded(from_tokens(tokens, request)) == {
        "tokenCount": 2,
        "tokens": ["x", "y"],
        "offsets": [{"end": 1}, {"start": 1, "end": 4}],
    }


def test_a_model_is_described(make_options):
    options = make_options(max_new_tokens=50)
    assert decoded(from_card(CARD, options)) == {"maxSequenceLength": 99, "maxNewTokens": 50}
    other = from_card(replace(CARD, encoder_decoder=True, max_model_len=None), options)
    assert decoded(other) == {"modelKind": "ENCODER_DECODER", "maxNewTokens": 50}
