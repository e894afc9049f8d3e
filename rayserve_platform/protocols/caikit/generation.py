"""Text generation: what Caikit checks of its arguments, and what they mean. Pure.

In the original a request is checked by Caikit and then by the TGIS behind it; here both are done,
in their order and their words. Source: the recordings in `tests/data/caikit`, and for the order of
the checks caikit-nlp 0.5.13 (`toolkit/text_generation/tgis_utils.py`). Every check is written so
that NaN fails it.
"""

import math
from typing import Any, Literal

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, PlatformError, PromptTooLong
from rayserve_platform.core.messages import Chunk, Details, Generate, Sampling, Stopping, StopReason
from rayserve_platform.protocols.caikit.translate import SHOWN_NAME_CHARS, Arguments, invalid

DEFAULT_MAX_NEW_TOKENS = 20
"""Caikit's own, and TGIS's for a request of zero."""
METHODS = ("GREEDY", "SAMPLING")
LEAST_TEMPERATURE = 0.05
MAX_REPETITION_PENALTY = 2.0
MAX_STOP_SEQUENCES = 6
MAX_STOP_SEQUENCE_CHARS = 240
UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1
"""Caikit writes its arguments into a message of TGIS's, whose fields have these types."""

Reason = Literal[
    "NOT_FINISHED",
    "MAX_TOKENS",
    "EOS_TOKEN",
    "CANCELLED",
    "TIME_LIMIT",
    "STOP_SEQUENCE",
    "TOKEN_LIMIT",
    "ERROR",
]
REASONS: dict[StopReason, Reason] = {
    StopReason.EOS: "EOS_TOKEN",
    StopReason.STOP_SEQUENCE: "STOP_SEQUENCE",
    StopReason.MAX_TOKENS: "MAX_TOKENS",
    StopReason.TOKEN_LIMIT: "TOKEN_LIMIT",
    StopReason.TIME_LIMIT: "TIME_LIMIT",
    StopReason.CANCELLED: "CANCELLED",
    StopReason.ERROR: "ERROR",
}


def reason_of(chunk: Chunk) -> Reason:
    """Return why the text ended with this chunk, by Caikit's name."""
    return REASONS[chunk.stop.reason] if chunk.stop is not None else "NOT_FINISHED"


class ValueFault(PlatformError):
    """What the original refuses with a `ValueError`: its event streams show it as Python does."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INVALID_ARGUMENT, message)


def check_generation(arguments: Arguments, limit: int) -> None:
    """Refuse arguments that Caikit or TGIS refuses; `limit` is the most new tokens.

    Raises:
        PlatformError: INVALID_ARGUMENT.
    """
    _check_values(arguments)
    _check_greedy(arguments)
    _check_ranges(arguments)
    _check_as_tgis(arguments, limit)


def _check_values(arguments: Arguments) -> None:
    if fault := _faulty_choice(arguments) or _faulty_number(arguments):
        raise ValueFault(f"value check failed: {fault}")


def _faulty_choice(arguments: Arguments) -> str:
    most, least = _new_tokens(arguments)
    if most < least:
        gap = " " * 9  # as Caikit's own line is broken
        return (
            f"Maximum new tokens [{most}] has to be greater than minimum new tokens{gap}[{least}]"
        )
    method = _method(arguments)
    if method not in METHODS:
        shown = method[:SHOWN_NAME_CHARS]
        return f"Decoding method [{shown}] not in valid decoding methods: [{list(METHODS)}]"
    return ""


def _faulty_number(arguments: Arguments) -> str:
    """Return what is wrong with a number; a zero passes as if it had not been sent."""
    temperature, top_p = arguments.get("temperature"), arguments.get("top_p")
    if temperature and not temperature >= LEAST_TEMPERATURE:
        return f"temperature must be >= {LEAST_TEMPERATURE}"
    if top_p and not 0.0 < top_p <= 1.0:
        return "top_p must be > 0.0 and <= 1.0"
    if arguments.get("top_k", 0) < 0:
        return "top_k must be strictly positive"
    typical_p, repetition = arguments.get("typical_p"), arguments.get("repetition_penalty")
    if typical_p and not typical_p <= 1.0:
        return "typical_p must be <= 1.0"
    if repetition and not repetition > 0.0:
        return "repetition_penalty must be > 0.0"
    penalty = _length_penalty(arguments)
    if penalty is not None and not 1.0 <= penalty[1] <= 10.0:
        return "decay_factor in exponential_decay_length_penalty must be >= 1.0 and <= 10.0"
    return ""


def _check_greedy(arguments: Arguments) -> None:
    """Refuse what only sampling uses; its defaults and any typical_p pass, as in the original."""
    used = (
        arguments.get("temperature", 1) != 1
        or arguments.get("top_k", 0) != 0
        or arguments.get("top_p", 1) != 1
        or arguments.get("seed", 0) != 0
    )
    if used and _method(arguments) == "GREEDY":
        raise ValueFault(
            "sampling parameters (temperature/top_k/top_p/typical_p/seed) aren't applicable in "
            "greedy decoding mode"
        )


def _check_ranges(arguments: Arguments) -> None:
    most, least = _new_tokens(arguments)
    penalty = _length_penalty(arguments)
    for number, maximum in (
        (arguments.get("top_k", 0), UINT32_MAX),
        (arguments.get("seed", 0), UINT64_MAX),
        (most, UINT32_MAX),
        (least, UINT32_MAX),
        (_time_limit_ms(arguments), UINT32_MAX),
        (penalty[0] if penalty is not None else 0, UINT32_MAX),
        (arguments.get("truncate_input_tokens", 0), UINT32_MAX),
    ):
        if not 0 <= number <= maximum:
            raise ValueFault(f"Value out of range: {number}")


def _check_as_tgis(arguments: Arguments, limit: int) -> None:
    if arguments.get("repetition_penalty", 0.0) > MAX_REPETITION_PENALTY:
        raise invalid(f"repetition_penalty must be > 0.0 and <= {MAX_REPETITION_PENALTY}")
    if _new_tokens(arguments)[0] > limit:
        raise invalid(f"max_new_tokens must be <= {limit}")
    sequences = arguments.get("stop_sequences", ())
    if len(sequences) > MAX_STOP_SEQUENCES or not all(
        1 <= len(sequence) <= MAX_STOP_SEQUENCE_CHARS for sequence in sequences
    ):
        raise invalid(
            f"can specify at most {MAX_STOP_SEQUENCES} non-empty stop sequences, each not more "
            f"than {MAX_STOP_SEQUENCE_CHARS} UTF8 bytes"
        )
    detailed = arguments.get("token_logprobs") or arguments.get("token_ranks")
    if detailed and not (arguments.get("input_tokens") or arguments.get("generated_tokens")):
        raise invalid("must request input and/or generated tokens to request extra token detail")
    if not math.isfinite(arguments.get("temperature", 1.0)):
        raise invalid("temperature must be a finite number")


def _new_tokens(arguments: Arguments) -> tuple[int, int]:
    """Return the most and the least new tokens."""
    most: int = arguments.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
    least: int = arguments.get("min_new_tokens", 0)
    return most, least


def _method(arguments: Arguments) -> str:
    method: str = arguments.get("decoding_method", METHODS[0])
    return method


def _length_penalty(arguments: Arguments) -> tuple[int, float] | None:
    """Return (start index, decay factor)."""
    penalty: Any = arguments.get("exponential_decay_length_penalty")
    if penalty is None:
        return None
    return penalty.start_index or 0, penalty.decay_factor or 0.0


def _time_limit_ms(arguments: Arguments) -> int | float:
    """Return whole milliseconds, as TGIS takes them; what is no number stays as it is."""
    limit_s: float = arguments.get("max_time", 0.0)
    return int(limit_s * 1000) if math.isfinite(limit_s * 1000) else limit_s


def to_generate(arguments: Arguments, served: Served, *, stream: bool, request_id: str) -> Generate:
    """Translate text generation; the arguments have been checked."""
    most, least = _new_tokens(arguments)
    stop_sequences = tuple(arguments.get("stop_sequences", ()))
    return Generate(
        model=served.card.id,
        prompt=arguments["text"],
        sampling=_sampling(arguments),
        stopping=Stopping(
            max_new_tokens=most or DEFAULT_MAX_NEW_TOKENS,
            min_new_tokens=least,
            stop_sequences=stop_sequences,
            include_stop_sequence=arguments.get("include_stop_sequence", True),
            time_limit_s=_time_limit_ms(arguments) / 1000 or None,
        ),
        details=Details(
            input_tokens=arguments.get("input_tokens", False),
            generated_tokens=arguments.get("generated_tokens", False),
            logprobs=arguments.get("token_logprobs", False),
            ranks=arguments.get("token_ranks", False),
        ),
        stream=stream,
        truncate_prompt_tokens=arguments.get("truncate_input_tokens") or None,
        adapter=served.adapter,
        request_id=request_id,
    )


def _sampling(arguments: Arguments) -> Sampling:
    """Return every choice that the model's own defaults would otherwise make.

    A zero is as good as nothing sent: so it reaches TGIS, except for the seed.
    """
    penalty = _length_penalty(arguments)
    common: dict[str, Any] = {
        "repetition_penalty": arguments.get("repetition_penalty") or 1.0,
        "length_penalty": penalty if penalty is not None and penalty[1] > 1.0 else None,
        "min_p": 0.0,
    }
    if _method(arguments) == "GREEDY":
        return Sampling(temperature=0.0, top_k=0, top_p=1.0, **common)
    typical_p = arguments.get("typical_p", 0.0)
    return Sampling(
        temperature=arguments.get("temperature") or 1.0,
        top_k=arguments.get("top_k", 0),
        top_p=arguments.get("top_p") or 1.0,
        typical_p=typical_p if 0.0 < typical_p < 1.0 else None,
        seed=arguments.get("seed"),
        **common,
    )


def preserved_text(arguments: Arguments, card: ModelCard) -> str:
    """Return what goes in front of the new text."""
    if not arguments.get("preserve_input_text", False):
        return ""
    text: str = arguments["text"]
    return f"{text}\n\n" if card.encoder_decoder else text


def prompt_too_long(error: PromptTooLong) -> PlatformError:
    """Return TGIS's error for a prompt that leaves no room."""
    prompt = f"input tokens ({error.token_count}) plus prefix length (0)"
    if error.min_new_tokens:
        prompt += f" plus min_new_tokens ({error.min_new_tokens})"
        return invalid(f"{prompt} must be <= {error.limit}")
    return invalid(f"{prompt} must be < {error.limit}")
