"""The vocabulary's `Generate` as vLLM's `SamplingParams`. Pure."""

from typing import Any

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Details, Generate, Guided, Sampling, Stopping
from rayserve_platform.runtimes.vllm.logits import LENGTH, TYPICAL


def to_sampling_params(
    request: Generate, *, max_tokens: int, defaults: dict[str, Any], processors: bool = True
) -> SamplingParams:
    """Translate a request.

    Args:
        request: what was asked for.
        max_tokens: new tokens, as clamped to the model's length.
        defaults: the model's own sampling defaults (its generation_config.json).
        processors: whether the engine has our logits processors.

    Raises:
        PlatformError: UNIMPLEMENTED for what vLLM cannot do, by name.
    """
    given = _sampling(request.sampling) | _stopping(request.stopping) | _details(request.details)
    by_default = {key: value for key, value in defaults.items() if key != "max_tokens"}
    if not processors:
        _refuse_processors(request.sampling)
    return SamplingParams(
        **(by_default | given),
        n=request.n,
        max_tokens=max_tokens,
        skip_special_tokens=request.skip_special_tokens,
        structured_outputs=_guided(request.guided),
        output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
    )


def _refuse_processors(sampling: Sampling) -> None:
    for name in ("typical_p", "length_penalty"):
        if getattr(sampling, name) is not None:
            raise PlatformError(
                Code.UNIMPLEMENTED,
                f"'{name}' is not supported together with this engine's speculative decoding.",
                param=name,
            )


def _sampling(sampling: Sampling) -> dict[str, Any]:
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
    found |= _processed(sampling)
    return {key: value for key, value in found.items() if value is not None}


def _processed(sampling: Sampling) -> dict[str, Any]:
    """Return what our logits processors are told; with `typical_p` they do top-k and top-p too."""
    extra: dict[str, Any] = {}
    taken_over: dict[str, Any] = {}
    if sampling.typical_p is not None:
        extra[TYPICAL] = [sampling.typical_p, max(0, sampling.top_k or 0), sampling.top_p or 1.0]
        taken_over = {"top_k": 0, "top_p": 1.0}
    if sampling.length_penalty is not None:
        extra[LENGTH] = list(sampling.length_penalty)
    return {"extra_args": extra, **taken_over} if extra else {}


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
        "prompt_logprobs": count if details.input_tokens and details.input_token_details else None,
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
