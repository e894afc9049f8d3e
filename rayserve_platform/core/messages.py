"""The neutral requests and answers that every wire API is translated into.

Plain frozen dataclasses: no web framework, no Ray, no engine. A request is never mutated
(`dataclasses.replace`). Times are seconds, sizes bytes, log probabilities natural logarithms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# ---------------------------------------------------------------- generate: the request


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. `None` leaves the choice to the model's own default.

    `temperature == 0` is greedy decoding, whatever the other fields say.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    length_penalty: tuple[int, float] | None = None
    """(start index in new tokens, decay factor > 1): grows the end-of-text logit from there on."""
    logit_bias: Mapping[int, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When generation ends. `max_new_tokens=None`: as many as the model has room for."""

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    stop_sequences: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_sequence: bool = False
    ignore_eos: bool = False
    time_limit_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What the answer carries besides the text."""

    input_text: bool = False
    input_tokens: bool = False
    generated_tokens: bool = False
    logprobs: bool = False
    ranks: bool = False
    top_n_tokens: int = 0
    """Alternatives reported at each position, besides the chosen token."""
    input_token_details: bool = True
    """Whether `logprobs`, `ranks` and `top_n_tokens` are meant for the input tokens too: an engine
    has to compute the whole prompt anew for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guided:
    """Constrained decoding: the output must match `value` (a schema, pattern, list or grammar)."""

    kind: Literal["json", "json_schema", "regex", "choice", "grammar"]
    value: str | tuple[str, ...] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A conversation, to be rendered by the model's own chat template."""

    turns: tuple[Turn, ...]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()
    template: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


Prompt = str | tuple[int, ...] | Chat
"""Text, token ids, or a conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """Continue `prompt`. Answered by `Chunk`s.

    Args:
        model: the served name, as resolved by the catalog.
        n: how many independent continuations; chunks carry their `index`.
        stream: False asks for one chunk a continuation, sent when it is complete.
        truncate_prompt_tokens: keep only the last N prompt tokens; where the tokenizer has put a
            beginning-of-text token in front, that one and the last N-1.
        add_special_tokens: let the tokenizer add its beginning-of-text token (text prompts).
        skip_special_tokens: leave special tokens out of the text.
        adapter: a LoRA adapter: the name of one that is loaded, or the path of one below the
            runtime's directory of adapters.
        priority: lower is served earlier, where the engine schedules by priority.
        cache_salt: an engine that remembers prompts uses for this one only what it remembers of
            others with the same.
        request_id: for logs and the engine's own records; need not be unique.
    """

    model: str
    prompt: Prompt
    sampling: Sampling = Sampling()
    stopping: Stopping = Stopping()
    details: Details = Details()
    guided: Guided | None = None
    n: int = 1
    stream: bool = False
    truncate_prompt_tokens: int | None = None
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    adapter: str | None = None
    priority: int = 0
    cache_salt: str | None = None
    request_id: str = ""


# ---------------------------------------------------------------- generate: the answer


class StopReason(StrEnum):
    """Why a continuation ended."""

    EOS = "eos"
    STOP_SEQUENCE = "stop_sequence"
    MAX_TOKENS = "max_tokens"
    """The request's own `max_new_tokens`."""
    TOKEN_LIMIT = "token_limit"
    """The model's length, or a limit of the server, came first."""
    TIME_LIMIT = "time_limit"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The end of a continuation; `sequence` is the stop text or end-of-text token that was met."""

    reason: StopReason
    sequence: str | None = None
    token_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token: id, vocabulary text, and what was asked for of logprob, rank, alternatives."""

    id: int
    text: str
    logprob: float | None = None
    rank: int | None = None
    top: tuple["Token", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInfo:
    """The prompt as the model saw it: its token count, and its tokens where asked for.

    Args:
        text: the prompt before any truncation, where asked for.
        queued_s: how long it waited for its turn in the engine, where the engine tells.
    """

    token_count: int
    text: str | None = None
    tokens: tuple[Token, ...] = ()
    queued_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of one continuation.

    Args:
        text: new text since the last chunk of this `index`; may be empty.
        tokens: new tokens, where `details.generated_tokens` asked for them.
        generated_tokens: cumulative count of new tokens of this `index`.
        prompt: on the first chunk of the request only.
        seed: the seed used, where one was supplied or drawn.
        stop: on the last chunk of this `index` only.
    """

    index: int = 0
    text: str = ""
    tokens: tuple[Token, ...] = ()
    generated_tokens: int = 0
    prompt: PromptInfo | None = None
    seed: int | None = None
    stop: Stop | None = None


# ---------------------------------------------------------------- embed


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Turn each input (text or token ids) into one vector.

    Args:
        truncate_tokens: keep the first N tokens of each input, special tokens included. Without it
            an input that is longer than the model takes is refused (`errors.InputTooLong`).
        dimensions: length of the vectors, for models that have several.
        cache_salt: as for `Generate`.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    truncate_tokens: int | None = None
    dimensions: int | None = None
    cache_salt: str | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """`vectors`: float32 [n inputs, dimension]; `token_counts`: n, special tokens included."""

    vectors: NDArray[np.float32]
    token_counts: tuple[int, ...]


# ---------------------------------------------------------------- tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """Split a prompt into tokens.

    Args:
        truncate_tokens: keep N tokens at most.
        truncate_side: where the others are left out. `left`: the last N stay, whatever they are.
            `right`: the first N stay; of a runtime that embeds, with the special tokens behind the
            text among them, as it would embed them.
        adapter: id of a LoRA adapter whose tokens are meant; it must exist.
    """

    model: str
    prompt: str | Chat
    add_special_tokens: bool = True
    truncate_tokens: int | None = None
    truncate_side: Literal["left", "right"] = "left"
    adapter: str | None = None
    request_id: str = ""

    def kept(self, count: int) -> slice:
        """Return which of `count` tokens stay."""
        if self.truncate_tokens is None or self.truncate_tokens >= count:
            return slice(0, count)
        if self.truncate_side == "right":
            return slice(0, self.truncate_tokens)
        return slice(count - self.truncate_tokens, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids, their vocabulary texts, and [start, end) character offsets where known."""

    ids: tuple[int, ...]
    texts: tuple[str, ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Detokenize:
    """Turn token ids back into text."""

    model: str
    ids: tuple[int, ...]
    request_id: str = ""
