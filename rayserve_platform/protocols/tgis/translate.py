"""TGIS's messages to the vocabulary and back. Pure.

What a field means is vllm-tgis-adapter's rendering of it (`tests/data/tgis`).
"""

from typing import Any

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.guides import check_pattern, check_size, check_text
from rayserve_platform.core.messages import (
    Chunk,
    Details,
    Generate,
    Guided,
    Sampling,
    Stopping,
    StopReason,
    Token,
    Tokenize,
    Tokens,
)
from rayserve_platform.pb.generation_pb2 import (
    DecodingMethod,
    GenerationResponse,
    ModelInfoResponse,
    TokenInfo,
    TokenizeResponse,
)
from rayserve_platform.pb.generation_pb2 import StopReason as Reason
from rayserve_platform.protocols.tgis.options import Options

REASONS = {
    StopReason.EOS: Reason.EOS_TOKEN,
    StopReason.STOP_SEQUENCE: Reason.STOP_SEQUENCE,
    StopReason.MAX_TOKENS: Reason.MAX_TOKENS,
    StopReason.TOKEN_LIMIT: Reason.TOKEN_LIMIT,
    StopReason.TIME_LIMIT: Reason.TIME_LIMIT,
    StopReason.CANCELLED: Reason.CANCELLED,
    StopReason.ERROR: Reason.ERROR,
}


def adapter_of(request: Any) -> str | None:
    """Return the adapter that a request names; `prefix_id` is the older name of the field."""
    return request.adapter_id or request.prefix_id or None


# ---------------------------------------------------------------- requests


def to_generate(
    text: str,
    params: Any,
    options: Options,
    *,
    model: str,
    adapter: str | None,
    stream: bool,
    request_id: str,
) -> Generate:
    """Return what one prompt asks for; its parameters have been checked."""
    return Generate(
        model=model,
        prompt=text,
        sampling=_sampling(params),
        stopping=_stopping(params.stopping, options),
        details=_details(params.response, options),
        guided=_guided(params.decoding),
        stream=stream,
        truncate_prompt_tokens=params.truncate_input_tokens or None,
        skip_special_tokens=not options.output_special_tokens,
        adapter=adapter,
        request_id=request_id,
    )


def _sampling(params: Any) -> Sampling:
    """Return every choice that the model's own defaults would otherwise make."""
    decoding, sampling = params.decoding, params.sampling
    penalty = decoding.length_penalty
    common: dict[str, Any] = {
        "repetition_penalty": decoding.repetition_penalty or 1.0,
        "length_penalty": (penalty.start_index, penalty.decay_factor)
        if penalty.decay_factor > 1.0
        else None,
        "min_p": 0.0,
    }
    temperature = sampling.temperature if sampling.HasField("temperature") else 1.0
    if params.method == DecodingMethod.GREEDY or temperature == 0:
        return Sampling(temperature=0.0, top_k=0, top_p=1.0, **common)
    return Sampling(
        temperature=temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p or 1.0,
        typical_p=sampling.typical_p if 0.0 < sampling.typical_p < 1.0 else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
        **common,
    )


def _stopping(stopping: Any, options: Options) -> Stopping:
    include = options.default_include_stop_seqs
    if stopping.HasField("include_stop_sequence"):
        include = stopping.include_stop_sequence
    return Stopping(
        max_new_tokens=stopping.max_new_tokens or options.new_tokens,
        min_new_tokens=stopping.min_new_tokens,
        stop_sequences=tuple(stopping.stop_sequences),
        include_stop_sequence=include,
        time_limit_s=stopping.time_limit_millis / 1000 or None,
    )


def _details(response: Any, options: Options) -> Details:
    return Details(
        input_tokens=response.input_tokens,
        generated_tokens=response.generated_tokens,
        logprobs=response.token_logprobs,
        ranks=response.token_ranks,
        top_n_tokens=response.top_n_tokens,
        input_token_details=options.prompt_logprobs,
    )


def _guided(decoding: Any) -> Guided | None:
    match decoding.WhichOneof("guided"):
        case None:
            return None
        case "format":
            return Guided(kind="json")
        case "choice":
            check_size("".join(decoding.choice.choices), "choice")
            return Guided(kind="choice", value=tuple(decoding.choice.choices))
        case "json_schema":
            check_text(decoding.json_schema, "json_schema")
            return Guided(kind="json_schema", value=decoding.json_schema)
        case "regex":
            check_pattern(decoding.regex, "regex")
            return Guided(kind="regex", value=decoding.regex)
        case _:
            check_size(decoding.grammar, "grammar")
            return Guided(kind="grammar", value=decoding.grammar)


def to_tokenize(text: str, request: Any, *, model: str, request_id: str) -> Tokenize:
    """Return what one text of a `BatchedTokenizeRequest` asks for."""
    return Tokenize(
        model=model,
        prompt=text,
        truncate_tokens=request.truncate_input_tokens or None,
        truncate_side="left",
        adapter=adapter_of(request),
        request_id=request_id,
    )


# ---------------------------------------------------------------- answers


class Responses:
    """Makes the answers to one prompt.

    Args:
        input_text: what goes in front of the text, where the request asks for it.
        limited: the request left `max_new_tokens` to the server, which has only a limit: to reach
            it is the server's doing, not the request's.
    """

    def __init__(self, params: Any, options: Options, text: str, card: ModelCard) -> None:
        separator = "\n\n" if card.encoder_decoder else ""
        self._input_text = text + separator if params.response.input_text else ""
        self._limited = (
            not params.stopping.max_new_tokens and options.default_max_new_tokens is None
        )
        self._details = params.response

    def whole(self, chunk: Chunk) -> GenerationResponse:
        """Return the answer to a unary call."""
        answer = self.first(chunk)
        answer.MergeFrom(self.piece(chunk))
        answer.text = self._input_text + chunk.text
        return answer

    def first(self, chunk: Chunk) -> GenerationResponse:
        """Return a stream's first message: what is known of the input."""
        prompt = chunk.prompt
        return GenerationResponse(
            text=self._input_text,
            input_token_count=prompt.token_count if prompt is not None else 0,
            input_tokens=[self._token(token) for token in prompt.tokens] if prompt else (),
            seed=chunk.seed or 0,
        )

    def piece(self, chunk: Chunk) -> GenerationResponse:
        """Return a further message: what has been generated since the last one."""
        answer = GenerationResponse(
            generated_token_count=chunk.generated_tokens,
            text=chunk.text,
            tokens=[self._token(token) for token in chunk.tokens],
        )
        if chunk.stop is not None:
            reason = REASONS[chunk.stop.reason]
            limited = self._limited and reason == Reason.MAX_TOKENS
            answer.stop_reason = Reason.TOKEN_LIMIT if limited else reason
            answer.stop_sequence = chunk.stop.sequence or ""
        return answer

    def _token(self, token: Token) -> TokenInfo:
        logprobs = self._details.token_logprobs
        return TokenInfo(
            text=token.text,
            logprob=token.logprob or 0.0,
            rank=token.rank or 0,
            top_tokens=[
                TokenInfo.TopToken(
                    text=other.text, logprob=(other.logprob or 0.0) if logprobs else 0.0
                )
                for other in token.top
            ],
        )


def from_tokens(tokens: Tokens, request: Any) -> TokenizeResponse:
    """Return the answer for one text of a `BatchedTokenizeRequest`."""
    offsets = tokens.offsets if request.return_offsets else ()
    return TokenizeResponse(
        token_count=len(tokens.ids),
        tokens=tokens.texts if request.return_tokens else (),
        offsets=[TokenizeResponse.Offset(start=start, end=end) for start, end in offsets],
    )


def from_card(card: ModelCard, options: Options) -> ModelInfoResponse:
    """Return what a model is."""
    decoder_only, encoder_decoder = (
        ModelInfoResponse.DECODER_ONLY,
        ModelInfoResponse.ENCODER_DECODER,
    )
    return ModelInfoResponse(
        model_kind=encoder_decoder if card.encoder_decoder else decoder_only,
        max_sequence_length=card.max_model_len or 0,
        max_new_tokens=options.max_new_tokens,
    )
