"""The vocabulary's `Generate` as vLLM's `SamplingParams`. Pure."""

from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Details, Generate, Guided, Sampling, Stopping


def to_sampling_params(
    request: Generate, *, max_tokens: int, defaults: dict[str, Any]
) -> SamplingParams:
    """Translate a request.

    Args:
        request: what was asked for.
        max_tokens: new tokens, as clamped to the model's length.
        defaults: the model's own sampling defaults (its generation_config.json).

    Raises:
        PlatformError: UNIMPLEMENTED for what vLLM cannot do, by name.
    """
    given = _sampling(request.sampling) | _stopping(request.stopping) | _details(request.details)
    by_default = {key: value for key, value in defaults.items() if key != "max_tokens"}
    timed = request.stopping.time_limit_s is not None
    return SamplingParams(
        **(by_default | given),
        n=request.n,
        max_tokens=max_tokens,
        skip_special_tokens=request.skip_special_tokens,
        structured_outputs=_guided(request.guided),
        output_kind=RequestOutputKind.DELTA
        if request.stream or timed
        else RequestOutputKind.FINAL_ONLY,
    )


def _sampling(sampling: Sampling) -> dict[str, Any]:
    refused = {"typical_p": sampling.typical_p, "length_penalty": sampling.length_penalty}
    for name, value in refused.items():
        if value is not None:
            raise PlatformError(
                Code.UNIMPLEMENTED, f"The vLLM runtime does not support '{name}'.", param=name
            )
    found = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "logit_bias": sampling.logit_bias,
    }
    return {key: value for key, value in found.items() if value is not None}


def _stopping(stopping: Stopping) -> dict[str, Any]:
    return {
        "stop": list(stopping.stop_sequences) or None,
        "stop_token_ids": list(stopping.stop_token_ids) or None,
        "include_stop_str_in_output": stopping.include_stop_sequence,
        "ignore_eos": stopping.ignore_eos,
        "min_tokens": stopping.min_new_tokens,
    }


def _details(details: Details) -> dict[str, Any]:
    wanted = details.logprobs or details.ranks or details.top_n_tokens > 0
    count = details.top_n_tokens if wanted else None
    return {
        "logprobs": count if details.generated_tokens else None,
        "prompt_logprobs": count if details.input_tokens else None,
    }


def _guided(guided: Guided | None) -> StructuredOutputsParams | None:
    if guided is None:
        return None
    if guided.kind == "json":
        return StructuredOutputsParams(json_object=True)
    if guided.kind == "choice":
        return StructuredOutputsParams(choice=list(guided.value))
    text = str(guided.value)
    if guided.kind == "json_schema":
        return StructuredOutputsParams(json=text)
    if guided.kind == "regex":
        return StructuredOutputsParams(regex=text)
    return StructuredOutputsParams(grammar=text)
