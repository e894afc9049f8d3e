"""The servers that are measured side by side: how each starts, and what is asked of it.

Everything a command line says is data here; a peer's command changes in this file only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Part = Literal["llm", "overhead"]
# What the overhead part posts: to a bare app's own paths, or to an OpenAI server.
Wire = Literal["openai", "bare"]

VLLM = "vllm"
STREAMED_CHUNKS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlags:
    """The engine settings every LLM peer gets, so that only the server around it differs."""

    dtype: str = "float32"
    enforce_eager: bool = True
    max_model_len: int = 2048
    kv_cache_gib: int = 1

    def arguments(self) -> tuple[str, ...]:
        """Return them as arguments of vLLM's own server."""
        eager = ("--enforce-eager",) if self.enforce_eager else ()
        return ("--dtype", self.dtype, *eager, "--max-model-len", str(self.max_model_len))

    def engine_kwargs(self) -> str:
        """Return them as a JSON object of vLLM engine arguments."""
        return json.dumps(
            {
                "dtype": self.dtype,
                "enforce_eager": self.enforce_eager,
                "max_model_len": self.max_model_len,
            }
        )

    def environment(self) -> dict[str, str]:
        """Return what vLLM reads from the environment only."""
        return {"VLLM_CPU_KVCACHE_SPACE": str(self.kv_cache_gib), "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server: `command` may hold {python} {port} {grpc_port} {model} {name} {config}.

    `{engine_kwargs}` becomes a JSON object; `{model_flags}` stands alone and becomes several
    arguments. `ready_path` answers 200 to GET once the server is up. `reference` is the peer its
    results are divided by. `config` is a file of the configs' folder; `without` names the settings
    of Ray's data plane to take out of it.
    """

    name: str
    about: str
    part: Part
    command: tuple[str, ...]
    reference: str
    ready_path: str = "/v1/models"
    wire: Wire = "openai"
    environment: Mapping[str, str] = field(default_factory=dict)
    config: str | None = None
    without: tuple[str, ...] = ()

    @property
    def needs_model(self) -> bool:
        """Whether the command names the model directory."""
        return "{model}" in self.command

    def argv(self, values: Mapping[str, str], flags: ModelFlags) -> list[str]:
        """Return the command with its placeholders filled in."""
        argv: list[str] = []
        for word in self.command:
            if word == "{model_flags}":
                argv += flags.arguments()
            else:
                argv.append(word.format_map({**values, "engine_kwargs": flags.engine_kwargs()}))
        return argv


_VLLM_COMMAND = (
    "{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}",
    "--served-model-name", "{name}", "{model_flags}", "--host", "127.0.0.1", "--port", "{port}",
)  # fmt: skip
_RAY_LLM_COMMAND = (
    "{python}", "-m", "rayserve_platform.bench.ray_llm_peer", "--model", "{model}",
    "--name", "{name}", "--port", "{port}", "--engine-kwargs", "{engine_kwargs}",
)  # fmt: skip
_BARE_COMMAND = ("{python}", "-m", "rayserve_platform.bench.bare_peer", "--port", "{port}")


def _ours(
    name: str,
    about: str,
    part: Part,
    *,
    config: str,
    reference: str,
    without: tuple[str, ...] = (),
) -> Peer:
    command = ("{python}", "-m", "rayserve_platform.cli", "run", "{config}",
               "--http-port", "{port}", "--grpc-port", "{grpc_port}",
               "--no-dashboard")  # fmt: skip
    return Peer(
        name=name, about=about, part=part, command=command, reference=reference, config=config,
        without=without,
    )  # fmt: skip


_THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_PLANES = {
    "": ("", ()),
    "-plain": (", HAProxy alone", (_THROUGHPUT,)),
    "-classic": (", Ray's classic proxy", (_THROUGHPUT, _HAPROXY)),
}


def _on_each_plane(name: str, about: str, *, config: str, reference: str) -> tuple[Peer, ...]:
    """Return one server for each data plane of Ray's; the first is the one our configs choose."""
    return tuple(
        _ours(
            name + suffix, about + plane, "overhead", config=config, reference=reference,
            without=without,
        )
        for suffix, (plane, without) in _PLANES.items()
    )  # fmt: skip


PEERS: tuple[Peer, ...] = (
    Peer(
        name=VLLM,
        about="vLLM's own OpenAI server",
        part="llm",
        command=_VLLM_COMMAND,
        reference=VLLM,
    ),
    _ours(
        "ours-separate",
        "this platform, ingress and engine in two deployments",
        "llm",
        config="separate.yaml",
        reference=VLLM,
    ),
    _ours(
        "ours-colocated",
        "this platform, engine in the ingress replica",
        "llm",
        config="colocated.yaml",
        reference=VLLM,
    ),
    Peer(
        name="ray-llm",
        about="ray.serve.llm with its defaults",
        part="llm",
        command=_RAY_LLM_COMMAND,
        reference=VLLM,
    ),
    Peer(
        name="ray-llm-direct",
        about="ray.serve.llm, direct streaming over HAProxy",
        part="llm",
        command=_RAY_LLM_COMMAND,
        reference=VLLM,
        environment={
            "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
        },
    ),
    Peer(
        name="bare-ingress",
        about="bare Ray Serve ASGI ingress",
        part="overhead",
        command=_BARE_COMMAND,
        reference="bare-ingress",
        ready_path="/",
        wire="bare",
    ),
    *_on_each_plane(
        "ours-fake-colocated",
        "this platform, fake engine in the ingress replica",
        config="fake-colocated.yaml",
        reference="bare-ingress",
    ),
    Peer(
        name="bare-hop",
        about="bare Ray Serve ASGI ingress, one handle hop",
        part="overhead",
        command=(*_BARE_COMMAND, "--hop"),
        reference="bare-hop",
        ready_path="/",
        wire="bare",
    ),
    *_on_each_plane(
        "ours-fake-separate",
        "this platform, fake engine behind a handle hop",
        config="fake-separate.yaml",
        reference="bare-hop",
    ),
)

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
