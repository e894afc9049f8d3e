"""What a server that is measured is: how it starts, and what its results are divided by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Part = Literal["llm", "overhead", "caikit", "tgis", "v2", "genai", "auth"]
# What is asked of it: an OpenAI server, a bare app's own paths, a Caikit runtime, TGIS, KServe v2,
# or a model in its own process without any API.
Wire = Literal["openai", "bare", "caikit", "tgis", "v2", "model"]


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
    """One server. `command` may hold these placeholders.

    {python} {port} {grpc_port} {metrics_port} {model} {name} {config} {out}; {embedder}: the
    embedding model's directory; {graphs}: that of the OpenVINO models; {gguf}: the LLM as a GGUF
    file; {caikit}, {kserve}, {mlserver}: the folders of their environments; {scripts}: that of this
    package's files.
    `{engine_kwargs}` becomes a JSON object; `{model_flags}` stands alone and becomes several
    arguments. `ready_path` answers 200 to GET once the server is up. `reference` is the peer its
    results are divided by. `config` is a file of the configs' folder; `without` names the settings
    of Ray's data plane to take out of it, `args` are set in its application. `replicas` is how many
    of the server `one_replica` this one is. `lacks` names the ways of asking that the server is
    known to refuse: that is shown, and is no failure.
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
    args: Mapping[str, object] = field(default_factory=dict)
    replicas: int = 1
    one_replica: str | None = None
    lacks: tuple[str, ...] = ()

    def needs(self, placeholder: str) -> bool:
        """Whether the command has the placeholder of that name."""
        return any(f"{{{placeholder}}}" in word for word in self.command)

    def argv(self, values: Mapping[str, str], flags: ModelFlags) -> list[str]:
        """Return the command with its placeholders filled in."""
        argv: list[str] = []
        for word in self.command:
            if word == "{model_flags}":
                argv += flags.arguments()
            else:
                argv.append(word.format_map({**values, "engine_kwargs": flags.engine_kwargs()}))
        return argv
