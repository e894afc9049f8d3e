"""The HTTP request a load repeats: where it goes, what it carries and how its answer is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Endpoint = Literal["chat", "completions"]

PATHS: Mapping[Endpoint, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A POST with one body out of `bodies` (request i sends body i modulo their number).

    `openai`: read the answer as OpenAI's: content, usage, in-band errors, `[DONE]`. Off, the
    answer is only counted.
    """

    url: str
    bodies: tuple[bytes, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 300.0
    stream: bool = False
    openai: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What is asked of the model: the same for every prompt, greedy."""

    endpoint: Endpoint = "chat"
    stream: bool = True
    max_tokens: int = 64
    ignore_eos: bool = False
    min_tokens: int = 0

    def body(self, model: str, prompt: str) -> bytes:
        """Return the JSON body for one prompt.

        `ignore_eos` and `min_tokens` are fields of vLLM's own API.
        """
        body: dict[str, object] = {
            "model": model,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": self.stream,
        }
        if self.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        if self.ignore_eos:
            body["ignore_eos"] = True
        if self.min_tokens:
            body["min_tokens"] = self.min_tokens
        return json.dumps(body).encode()


def generation_call(
    base_url: str,
    generation: Generation,
    *,
    model: str,
    prompts: Sequence[str],
    headers: Mapping[str, str],
    timeout_s: float,
) -> Call:
    """Return the call that asks the model at `base_url` to continue each prompt in turn."""
    return Call(
        url=server_root(base_url) + PATHS[generation.endpoint],
        bodies=tuple(generation.body(model, prompt) for prompt in prompts),
        headers=headers,
        timeout_s=timeout_s,
        stream=generation.stream,
    )


def server_root(base_url: str) -> str:
    """Return the URL without a trailing slash and without the `/v1` OpenAI clients are given."""
    return base_url.rstrip("/").removesuffix("/v1").rstrip("/")
