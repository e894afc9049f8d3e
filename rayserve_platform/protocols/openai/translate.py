"""OpenAI bodies to the vocabulary. Pure: no I/O, no web framework."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chat,
    Details,
    Detokenize,
    Embed,
    Generate,
    Guided,
    Prompt,
    Sampling,
    Stopping,
    Tokenize,
    Turn,
)
from rayserve_platform.protocols.openai.schema import (
    BODIES,
    Body,
    ChatBody,
    ChatMessage,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    Generation,
    StructuredOutputs,
    TokenizeBody,
)

OTHER_KIND = frozenset({"string_type", "list_type", "int_type", "dict_type", "model_type"})
"""Pydantic's problems with a value of quite another kind than expected."""
DEEPEST = 64
"""Levels of what is handed on as it is; pickle's own limit is some hundreds."""


def invalid(message: str, param: str | None = None) -> PlatformError:
    """Return the error for a caller's mistake."""
    return PlatformError(Code.INVALID_ARGUMENT, message, param=param)


def parse(verb: str, content: dict[str, Any]) -> Body:
    """Check a decoded body against the schema of its route.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the first field at fault.
    """
    try:
        return BODIES[verb].model_validate(content)
    except ValidationError as error:
        kind, field, path, message = _fault(error)
        if kind == "extra_forbidden":
            raise invalid(f"'{path}' is not supported by this model's runtime.", field) from None
        if kind == "missing":
            raise invalid(f"'{path}' is required.", field) from None
        raise invalid(f"'{path}': {message}.", field) from None


def _fault(error: ValidationError) -> tuple[str, str, str, str]:
    """Return kind, field, path and text of what is wrong with the first field at fault.

    A field that takes several kinds of value has a problem for each of them; those of the kinds
    that the value is not meant to be say nothing. Pydantic also puts the kind into the path.
    """
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    same = [problem for problem in problems if problem["loc"][:1] == problems[0]["loc"][:1]]
    found = next((problem for problem in same if problem["type"] not in OTHER_KIND), same[0])
    field, *rest = (str(part) for part in found["loc"])
    path = ".".join([field, *(part for part in rest if part != "str" and "[" not in part)])
    return found["type"], field, path, found["msg"]


def _sampling(body: Generation) -> Sampling:
    return Sampling(
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        seed=body.seed,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=body.logit_bias,
    )


def _stopping(body: Generation, max_new_tokens: int | None) -> Stopping:
    if max_new_tokens is not None and body.min_tokens > max_new_tokens:
        raise invalid(f"'min_tokens' must be at most {max_new_tokens}.", "min_tokens")
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if "" in stop:
        raise invalid("'stop' must not hold an empty string.", "stop")
    return Stopping(
        max_new_tokens=max_new_tokens,
        min_new_tokens=body.min_tokens,
        stop_sequences=tuple(stop),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop_sequence=body.include_stop_str_in_output,
        ignore_eos=body.ignore_eos,
    )


def _guided(body: Generation) -> Guided | None:
    """Return the one guide asked for; several contradict each other."""
    found: list[Guided] = []
    form = body.structured_outputs or StructuredOutputs()
    if form.regex is not None:
        found.append(Guided(kind="regex", value=form.regex))
    if form.grammar is not None:
        found.append(Guided(kind="grammar", value=form.grammar))
    if form.choice is not None:
        found.append(Guided(kind="choice", value=tuple(form.choice)))
    if form.json_object:
        found.append(Guided(kind="json"))
    if form.json_schema is not None:
        schema = _schema(form.json_schema, "structured_outputs")
        found.append(Guided(kind="json_schema", value=schema))
    wanted = body.response_format
    if wanted is not None and wanted.type == "json_object":
        found.append(Guided(kind="json"))
    if wanted is not None and wanted.type == "json_schema":
        if wanted.json_schema is None or wanted.json_schema.json_schema is None:
            raise invalid("'response_format.json_schema.schema' is required.", "response_format")
        schema = _schema(wanted.json_schema.json_schema, "response_format")
        found.append(Guided(kind="json_schema", value=schema))
    if len(found) > 1:
        raise invalid("Only one form of answer may be asked for.", "response_format")
    return found[0] if found else None


def _schema(given: str | dict[str, Any], field: str) -> str:
    try:
        return given if isinstance(given, str) else json.dumps(given)
    except RecursionError:
        raise invalid(f"The schema in '{field}' is nested too deeply.", field) from None


def _shallow(given: dict[str, Any], field: str) -> dict[str, Any]:
    """Refuse what is nested so deeply that it can't be handed on."""
    depth = 0
    level: list[dict[str, Any] | list[Any]] = [given]
    while level:
        depth += 1
        parts = (v.values() if isinstance(v, dict) else v for v in level)
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
    if depth > DEEPEST:
        raise invalid(f"'{field}' is nested more than {DEEPEST} levels deep.", field)
    return given


def _turns(messages: Sequence[ChatMessage]) -> tuple[Turn, ...]:
    def text(message: ChatMessage) -> str:
        if isinstance(message.content, list):
            return "".join(part.text for part in message.content)
        return message.content or ""

    return tuple(Turn(role=message.role, content=text(message)) for message in messages)


def _generate(
    body: Generation, model: str, request_id: str, prompt: Prompt, **more: Any
) -> Generate:
    return Generate(
        model=model,
        prompt=prompt,
        sampling=_sampling(body),
        guided=_guided(body),
        n=body.n,
        stream=bool(body.stream),
        truncate_prompt_tokens=body.truncate_prompt_tokens,
        add_special_tokens=body.add_special_tokens,
        skip_special_tokens=body.skip_special_tokens,
        priority=body.priority,
        request_id=request_id,
        **more,
    )


def to_chat_generate(
    body: ChatBody, *, model: str, adapter: str | None, request_id: str
) -> Generate:
    """Translate a chat completion."""
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    chat = Chat(
        turns=_turns(body.messages),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        template_kwargs=_shallow(body.chat_template_kwargs or {}, "chat_template_kwargs"),
    )
    details = Details(
        generated_tokens=bool(body.logprobs),
        logprobs=bool(body.logprobs),
        top_n_tokens=body.top_logprobs or 0,
    )
    limit = body.max_completion_tokens or body.max_tokens
    return _generate(
        body,
        model,
        request_id,
        chat,
        stopping=_stopping(body, limit),
        details=details,
        adapter=adapter,
    )


def to_completion_generates(
    body: CompletionBody, *, model: str, adapter: str | None, request_id: str
) -> list[Generate]:
    """Translate a text completion: one request a prompt.

    OpenAI's default of 16 new tokens applies (API reference, `max_tokens`).
    """
    if body.echo and body.stream:
        raise invalid("'echo' is not supported by this model's runtime with 'stream'.", "echo")
    details = Details(
        input_text=bool(body.echo),
        input_tokens=bool(body.echo) and body.logprobs is not None,
        generated_tokens=body.logprobs is not None,
        logprobs=body.logprobs is not None,
        top_n_tokens=body.logprobs or 0,
    )
    stopping = _stopping(body, body.max_tokens or 16)
    return [
        _generate(
            body, model, request_id, prompt, stopping=stopping, details=details, adapter=adapter
        )
        for prompt in _prompts(body.prompt, "prompt")
    ]


def _prompts(
    given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]], field: str
) -> list[str | tuple[int, ...]]:
    """Tell apart the four forms that `prompt` and `input` may take."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise invalid(f"'{field}' must hold at least one text.", field)
    if isinstance(given[0], int):
        return [tuple(given)]  # type: ignore[arg-type]  # the schema admits no mixed lists
    return [item if isinstance(item, str) else tuple(item) for item in given]  # type: ignore[arg-type]


def to_embed(body: EmbeddingBody, *, model: str, request_id: str) -> Embed:
    """Translate an embeddings request."""
    return Embed(
        model=model,
        inputs=tuple(_prompts(body.input, "input")),
        truncate_tokens=body.truncate_prompt_tokens,
        dimensions=body.dimensions,
        request_id=request_id,
    )


def to_tokenize(body: TokenizeBody, *, model: str, request_id: str) -> Tokenize:
    """Translate vLLM's tokenize request."""
    if (body.prompt is None) == (body.messages is None):
        raise invalid("Exactly one of 'prompt' and 'messages' is required.", "prompt")
    prompt: str | Chat
    if body.messages is not None:
        prompt = Chat(
            turns=_turns(body.messages),
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
        )
    else:
        prompt = body.prompt or ""
    return Tokenize(
        model=model,
        prompt=prompt,
        add_special_tokens=body.add_special_tokens,
        request_id=request_id,
    )


def to_detokenize(body: DetokenizeBody, *, model: str, request_id: str) -> Detokenize:
    """Translate vLLM's detokenize request."""
    return Detokenize(model=model, ids=tuple(body.tokens), request_id=request_id)
