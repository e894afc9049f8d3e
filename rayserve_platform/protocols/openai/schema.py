"""Request bodies of the OpenAI API, for runtimes that have no OpenAI server of their own.

Field names and ranges: OpenAI's API reference, and vLLM's documented extra parameters, so that a
client needs no change between runtimes. A field that is not here is refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str | None = None
    """The served name; may be left out when one model is served."""
    user: str | None = None
    """Accepted and not used, as are the four below."""
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None


class StreamOptions(BaseModel):
    """What a stream carries besides its chunks."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool | None = None


class Generation(Body):
    """What chat and text completions share."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] = 0
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=64)] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    skip_special_tokens: bool = True
    add_special_tokens: bool = True
    priority: int = 0
    structured_outputs: "StructuredOutputs | None" = None
    response_format: "ResponseFormat | None" = None


class StructuredOutputs(BaseModel):
    """vLLM's own way to ask for the form of the answer: one of these."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    json_schema: str | dict[str, Any] | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = None


class JsonSchema(BaseModel):
    """A named schema that the answer must match."""

    model_config = ConfigDict(populate_by_name=True)

    name: str
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(BaseModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class TextPart(BaseModel):
    """A part of a message; other kinds of part need a multimodal runtime."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None


class ChatBody(Generation):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(Generation):
    """`POST /v1/completions`."""

    prompt: str | list[str] | TokenIds | list[TokenIds]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = False


class EmbeddingBody(Body):
    """`POST /v1/embeddings`."""

    input: str | Annotated[list[str], Field(min_length=1)] | TokenIds | list[TokenIds]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | None = None


class ScoreBody(Body):
    """`POST /v1/score`, as vLLM's server defines it, for texts."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    items: str | list[str] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | None = None


class RerankBody(Body):
    """`POST /v1/rerank`, as vLLM's server defines it, for texts."""

    query: str
    documents: str | list[str]
    top_n: Annotated[int, Field(ge=0)] = 0
    truncate_prompt_tokens: Annotated[int, Field(ge=1)] | None = None


class TokenizeBody(Body):
    """`POST /tokenize`, as vLLM's server defines it: a prompt or messages."""

    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = False


class DetokenizeBody(Body):
    """`POST /detokenize`, as vLLM's server defines it."""

    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field()]


BODIES: dict[str, type[Body]] = {
    "chat": ChatBody,
    "completion": CompletionBody,
    "embeddings": EmbeddingBody,
    "score": ScoreBody,
    "rerank": RerankBody,
    "tokenize": TokenizeBody,
    "detokenize": DetokenizeBody,
}
"""The body of each route that the ingress answers by translation, by `Route.verb`."""
