"""The vocabulary's answers as OpenAI objects, whole and streamed. Pure.

Shapes: OpenAI's API reference (`chat.completion`, `chat.completion.chunk`, `text_completion`,
`list` of `embedding`); `/tokenize`, `/detokenize` and the fields `root` and `max_model_len` of a
model as vLLM's server gives them.
"""

import base64
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chunk,
    Embeddings,
    PromptInfo,
    Stop,
    StopReason,
    Token,
    Tokens,
)
from rayserve_platform.edge.exchange import status_of

DONE = b"data: [DONE]\n\n"

FINISH = {
    StopReason.EOS: "stop",
    StopReason.STOP_SEQUENCE: "stop",
    StopReason.MAX_TOKENS: "length",
    StopReason.TOKEN_LIMIT: "length",
    StopReason.TIME_LIMIT: "length",
    StopReason.CANCELLED: "abort",
    StopReason.ERROR: "error",
}

ERROR_TYPES = {
    Code.INVALID_ARGUMENT: "invalid_request_error",
    Code.UNAUTHENTICATED: "authentication_error",
    Code.PERMISSION_DENIED: "permission_error",
    Code.NOT_FOUND: "not_found_error",
    Code.RESOURCE_EXHAUSTED: "rate_limit_error",
    Code.DEADLINE_EXCEEDED: "timeout_error",
    Code.UNIMPLEMENTED: "unsupported_error",
    Code.UNAVAILABLE: "service_unavailable_error",
    Code.INTERNAL: "internal_server_error",
}


def error_object(error: PlatformError, request_id: str) -> dict[str, Any]:
    """Render an error in OpenAI's shape; a failure of ours carries the request id to look up."""
    message = error.message
    if error.code is Code.INTERNAL:
        message = f"{message} (request id {request_id})"
    return {
        "error": {
            "message": message,
            "type": ERROR_TYPES[error.code],
            "param": error.param,
            "code": _error_code(error),
        }
    }


def _error_code(error: PlatformError) -> str | int:
    """OpenAI's word for the error where clients look for one, else the status, as vLLM gives."""
    if error.code is Code.NOT_FOUND and error.param == "model":
        return "model_not_found"
    return "rate_limit_exceeded" if error.code is Code.RESOURCE_EXHAUSTED else status_of(error)


def finish_reason(stop: Stop | None) -> str | None:
    """OpenAI's word for why a continuation ended."""
    return None if stop is None else FINISH[stop.reason]


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Token counts of one request."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any] | None:
    """`choices[].logprobs` of a chat completion."""

    def entry(token: Token) -> dict[str, Any]:
        text = token.text
        return {"token": text, "logprob": token.logprob, "bytes": list(text.encode())}

    if not tokens:
        return None
    return {"content": [{**entry(t), "top_logprobs": [entry(o) for o in t.top]} for t in tokens]}


def completion_logprobs(tokens: Sequence[Token], offset: int = 0) -> dict[str, Any] | None:
    """`choices[].logprobs` of a text completion; `offset`: characters before the first token."""
    if not tokens:
        return None
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [{o.text: o.logprob for o in t.top} for t in tokens],
        "text_offset": offsets,
    }


class Style:
    """Chat or text completion: what differs in their answers."""

    def __init__(self, *, chat: bool, model: str) -> None:
        self.chat = chat
        self.model = model
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def envelope(self, choices: list[dict[str, Any]], *, chunk: bool = False) -> dict[str, Any]:
        """Return the object around choices."""
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def choice(self, index: int, chunk: Chunk, prompt: PromptInfo | None) -> dict[str, Any]:
        """Return one complete choice; `prompt` where its text is to be echoed."""
        end = {"finish_reason": finish_reason(chunk.stop), "stop_reason": _stop_reason(chunk.stop)}
        if self.chat:
            message = {"role": "assistant", "content": chunk.text}
            return {
                "index": index,
                "message": message,
                "logprobs": chat_logprobs(chunk.tokens),
                **end,
            }
        text, tokens = chunk.text, chunk.tokens
        if prompt is not None and prompt.text is not None:
            text, tokens = prompt.text + text, (*prompt.tokens, *tokens)
        return {"index": index, "text": text, "logprobs": completion_logprobs(tokens), **end}


def _stop_reason(stop: Stop | None) -> str | int | None:
    if stop is None:
        return None
    return stop.sequence if stop.reason is StopReason.STOP_SEQUENCE else None


class EventWriter:
    """Renders the chunks of one stream as server-sent events.

    What is the same in every event of a stream is rendered once: a plain text delta costs one
    string encoding.
    """

    def __init__(self, style: Style, *, include_usage: bool, continuous: bool) -> None:
        self._style = style
        self._include_usage = include_usage
        self._continuous = continuous
        self._prompt_tokens = 0
        self._generated: dict[int, int] = {}
        self._offsets: dict[int, int] = {}
        head = orjson.dumps(style.envelope([], chunk=True))[:-2]
        self._head = b"data: " + head
        null_usage = b',"usage":null' if include_usage and not continuous else b""
        self._tail = b',"logprobs":null,"finish_reason":null}]' + null_usage + b"}\n\n"

    def opening(self, indexes: Iterable[int]) -> bytes:
        """Return what precedes the first token: a chat stream names the role."""
        if not self._style.chat:
            return b""
        return b"".join(
            self._event(
                [
                    {
                        "index": i,
                        "delta": {"role": "assistant", "content": ""},
                        "logprobs": None,
                        "finish_reason": None,
                    }
                ]
            )
            for i in indexes
        )

    def events(self, base: int, chunks: Sequence[Chunk]) -> bytes:
        """Render chunks that are ready; `base` is added to each chunk's index."""
        return b"".join([self._render(base + chunk.index, chunk) for chunk in chunks])

    def _render(self, index: int, chunk: Chunk) -> bytes:
        self._generated[index] = chunk.generated_tokens
        if chunk.prompt is not None:
            self._prompt_tokens += chunk.prompt.token_count
        if chunk.stop is None and not chunk.tokens and not self._continuous:
            text = orjson.dumps(chunk.text)
            if self._style.chat:
                return b'%s{"index":%d,"delta":{"content":%s}%s' % (
                    self._head,
                    index,
                    text,
                    self._tail,
                )
            return b'%s{"index":%d,"text":%s%s' % (self._head, index, text, self._tail)
        return self._event([self._choice(index, chunk)])

    def _choice(self, index: int, chunk: Chunk) -> dict[str, Any]:
        end = {"finish_reason": finish_reason(chunk.stop), "stop_reason": _stop_reason(chunk.stop)}
        if self._style.chat:
            delta = {"content": chunk.text}
            return {"index": index, "delta": delta, "logprobs": chat_logprobs(chunk.tokens), **end}
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + sum(len(token.text) for token in chunk.tokens)
        logprobs = completion_logprobs(chunk.tokens, offset)
        return {"index": index, "text": chunk.text, "logprobs": logprobs, **end}

    def _event(self, choices: list[dict[str, Any]]) -> bytes:
        content = self._style.envelope(choices, chunk=True)
        if self._continuous:
            content["usage"] = usage(self._prompt_tokens, sum(self._generated.values()))
        elif self._include_usage:
            content["usage"] = None
        return b"data: " + orjson.dumps(content) + b"\n\n"

    def closing(self) -> bytes:
        """Return what follows the last token."""
        if not self._include_usage:
            return DONE
        content = self._style.envelope([], chunk=True)
        content["usage"] = usage(self._prompt_tokens, sum(self._generated.values()))
        return b"data: " + orjson.dumps(content) + b"\n\n" + DONE


def embedding_list(answer: Embeddings, model: str, *, as_base64: bool) -> dict[str, Any]:
    """Render embeddings; base64 is of little-endian float32, as OpenAI's client expects."""

    def one(vector: Any) -> Any:
        if as_base64:
            return base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return vector.tolist()

    data = [
        {"object": "embedding", "index": i, "embedding": one(vector)}
        for i, vector in enumerate(answer.vectors)
    ]
    tokens = sum(answer.token_counts)
    counts = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": counts}


def token_list(answer: Tokens, card: ModelCard, *, with_texts: bool) -> dict[str, Any]:
    """Render `/tokenize`."""
    return {
        "count": len(answer.ids),
        "max_model_len": card.max_model_len,
        "tokens": list(answer.ids),
        "token_strs": list(answer.texts) if with_texts else None,
    }


def model_objects(card: ModelCard) -> list[dict[str, Any]]:
    """Render a card as entries of `/v1/models`: the model, its aliases, its adapters."""

    def entry(name: str, root: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": card.created,
            "owned_by": "rayserve",
            "root": root,
            "parent": parent,
            "max_model_len": card.max_model_len,
        }

    names = [entry(name, card.root, None) for name in (card.id, *card.aliases)]
    return names + [entry(a.name, a.root, card.id) for a in card.adapters]
