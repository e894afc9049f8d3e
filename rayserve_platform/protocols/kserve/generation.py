"""Text generation: the parameters, and the answers of `generate` and `generate_stream`.

Sources: Open Inference Protocol, `generate_rest.yaml` (parameters, their default, `details`,
`done`); Triton's generate extension, which also takes parameters beside `text_input`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import PlatformError, internal_error
from rayserve_platform.core.messages import (
    Chunk,
    Details,
    Generate,
    Sampling,
    Stop,
    Stopping,
    StopReason,
)
from rayserve_platform.protocols.kserve.tensors import invalid, shown, written

MAX_TOKENS = 20
"""New tokens where a request doesn't say, as in the specification."""
PARAMETERS: dict[str, tuple[type, float, float]] = {
    "temperature": (float, 0, math.inf),
    "top_p": (float, 0, 1),
    "min_p": (float, 0, 1),
    "typical_p": (float, 0, 1),
    "top_k": (int, 0, 2**31 - 1),
    "seed": (int, 0, 2**63 - 1),
    "frequency_penalty": (float, -2, 2),
    "presence_penalty": (float, -2, 2),
    "repetition_penalty": (float, 0, math.inf),
    "max_tokens": (int, 1, 2**31 - 1),
    "min_tokens": (int, 0, 2**31 - 1),
    "ignore_eos": (bool, 0, 1),
    "details": (bool, 0, 1),
}
"""The type and range of each; `stop`, a text or a list of texts, besides."""
SAMPLING = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "top_k",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)
ENDPOINT = frozenset({"text_input", "id", "parameters", "model_name", "model_version", "stream"})
"""Keys of a body that are no parameters of the generation."""
FINISHED = {
    StopReason.EOS: "eos_token",
    StopReason.STOP_SEQUENCE: "stop_sequence",
    StopReason.MAX_TOKENS: "length",
    StopReason.TOKEN_LIMIT: "length",
    StopReason.TIME_LIMIT: "length",
}


def read(document: Mapping[str, Any], *, stream: bool) -> tuple[str, dict[str, Any]]:
    """Return the text of a `generate` body and its parameters, wherever they stand."""
    text = document.get("text_input")
    if type(text) is not str:
        raise invalid("'text_input' is required: a string.", "text_input")
    parameters = document.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise invalid("'parameters' must be an object.", "parameters")
    found = {key: value for key, value in document.items() if key not in ENDPOINT}
    found |= parameters or {}
    for asked in (document.get("stream"), found.pop("stream", None)):
        if asked is not None and type(asked) is not bool:
            raise invalid(f"'stream' must be true or false, got {written(asked)}.", "stream")
        if asked is not None and asked is not stream:
            raise invalid("'stream': generate answers whole, generate_stream in parts.", "stream")
    return text, found


def to_generate(
    served: Served, text: str, parameters: Mapping[str, Any], *, stream: bool, request_id: str
) -> Generate:
    """Turn a text and its parameters into the vocabulary's request.

    Raises:
        PlatformError: INVALID_ARGUMENT for a parameter that is not known or out of its range.
    """
    found = {key: _checked(key, value) for key, value in parameters.items() if value is not None}
    details = bool(found.get("details"))
    return Generate(
        model=served.card.id,
        prompt=text,
        sampling=Sampling(**{key: found.get(key) for key in SAMPLING}),
        stopping=Stopping(
            max_new_tokens=found.get("max_tokens", MAX_TOKENS),
            min_new_tokens=found.get("min_tokens", 0),
            stop_sequences=found.get("stop", ()),
            ignore_eos=found.get("ignore_eos", False),
        ),
        details=Details(generated_tokens=details, logprobs=details),
        stream=stream,
        adapter=served.adapter,
        request_id=request_id,
    )


def _checked(key: str, value: Any) -> Any:
    if key == "stop":
        listed = [value] if type(value) is str else value
        if type(listed) is not list or not all(type(item) is str and item for item in listed):
            raise invalid("The parameter 'stop' must be a text or a list of texts.", key)
        return tuple(listed)
    if key not in PARAMETERS:
        known = ", ".join(sorted((*PARAMETERS, "stop")))
        raise invalid(f"Unknown parameter '{shown(key)}'; known: {known}.", "parameters")
    kind, low, high = PARAMETERS[key]
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits or not low <= value <= high:
        names = {float: "a number", int: "a whole number", bool: "true or false"}
        bounds = "" if kind is bool else f" from {low:g} to {high:g}"
        raise invalid(
            f"The parameter '{key}' must be {names[kind]}{bounds}, got {written(value)}.", key
        )
    return kind(value)


def answer(chunk: Chunk, *, name: str, request_id: str, details: bool) -> dict[str, Any]:
    """Return the JSON of a text that is complete."""
    return {
        **_head(name, request_id),
        "text_output": chunk.text,
        **(_details(finish(chunk.stop), [chunk]) if details else {}),
    }


def event(chunks: Sequence[Chunk], *, name: str, request_id: str, details: bool) -> dict[str, Any]:
    """Return the JSON of a part of a text; the last one says so."""
    stop = chunks[-1].stop
    reason = None if stop is None else finish(stop)
    return {
        **_head(name, request_id),
        "text_output": "".join(chunk.text for chunk in chunks),
        "done": stop is not None,
        **(_details(reason, chunks) if details else {}),
    }


def _head(name: str, request_id: str) -> dict[str, Any]:
    head = {"model_name": name, "model_version": "1"}
    return {**head, "id": request_id} if request_id else head


def _details(reason: str | None, chunks: Sequence[Chunk]) -> dict[str, Any]:
    tokens = [
        {"id": token.id, "text": token.text, "logprob": token.logprob}
        for chunk in chunks
        for token in chunk.tokens
    ]
    return {"details": {"finish_reason": reason, "logprobs": tokens}}


def finish(stop: Stop | None) -> str:
    """Return why a text ended.

    Raises:
        PlatformError: INTERNAL for one that the engine gave up.
    """
    if stop is None or stop.reason not in FINISHED:
        raise internal_error()
    return FINISHED[stop.reason]


def failure(error: PlatformError) -> dict[str, Any]:
    """Return the JSON of an error, alone or in a stream."""
    return {"error": error.message}
