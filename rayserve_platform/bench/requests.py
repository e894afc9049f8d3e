"""The requests of completions that peers are measured by."""

import json
from collections.abc import Mapping

from rayserve_platform.bench.peer import Peer

STREAMED_CHUNKS = 128

_BARE_BODY: Mapping[str, object] = {"prompt": "x" * 110, "max_tokens": 1, "stream": False}


def unary_request(peer: Peer, model: str) -> tuple[str, bytes]:
    """Return path and body of the short request the overhead part repeats."""
    if peer.wire == "bare":
        return "/", json.dumps(_BARE_BODY).encode()
    return "/v1/completions", _completion(model, max_tokens=1, stream=False)


def stream_request(peer: Peer, model: str) -> tuple[str, bytes]:
    """Return path and body of the request that streams `STREAMED_CHUNKS` chunks."""
    if peer.wire == "bare":
        return "/stream", json.dumps(_BARE_BODY).encode()
    return "/v1/completions", _completion(model, max_tokens=STREAMED_CHUNKS, stream=True)


def _completion(model: str, *, max_tokens: int, stream: bool) -> bytes:
    body = {
        "model": model,
        "prompt": "The quick brown fox jumps over the lazy dog",
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": stream,
    }
    return json.dumps(body).encode()
