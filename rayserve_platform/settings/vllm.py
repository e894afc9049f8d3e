"""Settings of the vLLM runtime: vLLM's own argument names, checked without importing vLLM.

Importing vLLM takes many seconds and a lot of memory, and `rayserve check` and the process that
runs `serve run` need neither. So the names come from the source of the installed package's own
dataclasses (`EngineArgs`, `FrontendArgs`), read as text. Values are checked by vLLM's own argument
parser when a replica starts.
"""

import ast
import importlib.util
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from rayserve_platform.settings.app import ModelApp
from rayserve_platform.settings.model import Settings, unknown_key

ENGINE_SOURCES = (("engine/arg_utils.py", ("EngineArgs", "AsyncEngineArgs")),)
FRONTEND_SOURCES = (("entrypoints/launchers/cli_args.py", ("BaseFrontendArgs", "FrontendArgs")),)

OURS = {
    "model": "model.source",
    "served_model_name": "model.id and model.aliases",
    "reasoning_parser": "reasoning_parser",
    "chat_template": "chat_template",
    "tool_call_parser": "tool_parser",
    "enable_auto_tool_choice": "tool_parser",
    "lora_modules": "lora",
}
"""Arguments that have a setting of their own here."""

NOT_OURS = frozenset(
    {
        "allow_credentials",
        "allowed_headers",
        "allowed_methods",
        "allowed_origins",
        "api_key",
        "data_parallel_supervisor_port",
        "disable_access_log_for_endpoints",
        "disable_fastapi_docs",
        "disable_uvicorn_access_log",
        "dp_supervisor_probe_failure_threshold",
        "dp_supervisor_probe_interval_s",
        "dp_supervisor_probe_timeout_s",
        "enable_offline_docs",
        "enable_request_id_headers",
        "enable_ssl_refresh",
        "grpc_port",
        "h11_max_header_count",
        "h11_max_incomplete_event_size",
        "host",
        "middleware",
        "port",
        "root_path",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_ciphers",
        "ssl_keyfile",
        "tokens_only",
        "trust_request_chat_template",
        "uds",
        "uvicorn_log_level",
    }
)
"""What a server of vLLM's own would do, and the ingress and Serve do here, or what is unsafe."""

SCALED_BY_SERVE = frozenset(
    {
        "data_parallel_size",
        "data_parallel_backend",
        "data_parallel_size_local",
        "data_parallel_address",
        "data_parallel_rank",
        "data_parallel_rpc_port",
        "data_parallel_start_rank",
        "data_parallel_hybrid_lb",
        "data_parallel_external_lb",
        "data_parallel_multi_port_external_lb",
        "nnodes",
        "node_rank",
        "master_addr",
        "master_port",
    }
)
"""Arguments that make an engine several, or join processes started by hand."""

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "prefill_context_parallel_size")
"""Arguments whose product is the number of an engine's workers."""

SCALARS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


@cache
def argument_types(group: str) -> Mapping[str, str] | None:
    """Return vLLM's argument names and annotations, or None where vLLM is not installed.

    Args:
        group: `engine` or `frontend`.
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0])
    found: dict[str, str] = {}
    for path, classes in ENGINE_SOURCES if group == "engine" else FRONTEND_SOURCES:
        for node in ast.parse((root / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in classes:
                found |= _fields(node)
    return found


def _fields(node: ast.ClassDef) -> dict[str, str]:
    return {
        item.target.id: ast.unparse(item.annotation)
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
    }


def check_arguments(values: Mapping[str, Any], group: str) -> None:
    """Hold `values` against vLLM's own dataclass.

    Raises:
        ValueError: naming the unknown argument and the nearest known one, the setting to use
            instead, or the type expected.
    """
    known = argument_types(group)
    for key, value in values.items():
        if key in OURS:
            raise ValueError(f"'{key}' is set through '{OURS[key]}'")
        if key in NOT_OURS:
            raise ValueError(f"'{key}' has no effect here: the ingress and Serve do this job")
        if key in SCALED_BY_SERVE:
            raise ValueError(f"'{key}': replicas are Serve's to make: deployment.num_replicas")
        if known is None:
            continue
        if key not in known:
            raise ValueError(
                unknown_key(
                    key, set(known) - set(OURS) - NOT_OURS - SCALED_BY_SERVE, "vLLM argument"
                )
            )
        _check_type(key, value, known[key])


def _check_type(key: str, value: Any, annotation: str) -> None:
    """Refuse a scalar of the wrong kind where the annotation is made of plain scalars only."""
    names = [name.strip() for name in annotation.split("|")]
    if not all(name in SCALARS for name in names) or value is None:
        return
    allowed = [SCALARS[name] for name in names]
    fits = any(
        isinstance(value, kinds) and (kinds == (bool,) or not isinstance(value, bool))
        for kinds in allowed
    )
    # vLLM's own parser reads sizes such as "8k" and "1.5G" for integers.
    if not fits and not (isinstance(value, str) and "int" in names and value[:1].isdigit()):
        raise ValueError(f"'{key}' must be {annotation}, got {value!r}")


class Lora(Settings):
    """A LoRA adapter, served as a model of its own name."""

    name: str = Field(min_length=1)
    """The name clients put into `model`."""
    path: str = Field(min_length=1)
    """Local directory with `adapter_config.json`."""
    base_model_name: str | None = None
    """What `/v1/models` names as its parent."""


class VLLMApp(ModelApp):
    """Args of `deployments.vllm:app`."""

    engine: dict[str, Any] = Field(default_factory=dict)
    """vLLM engine arguments by their Python name (`max_model_len`, `tensor_parallel_size`, …)."""
    frontend: dict[str, Any] = Field(default_factory=dict)
    """Arguments of vLLM's OpenAI server that are not about its sockets (`response_role`,
    `enable_prompt_tokens_details`, `default_chat_template_kwargs`, …)."""
    chat_template: str | None = None
    """Path of a `.jinja` file, or the template itself; for models that ship without one."""
    tool_parser: str | None = None
    """vLLM's tool-call parser (`hermes`, `llama3_json`, …); switches automatic tool choice on."""
    reasoning_parser: str | None = None
    """vLLM's reasoning parser (`qwen3`, `deepseek_r1`, …)."""
    lora: tuple[Lora, ...] = ()
    """LoRA adapters loaded at start."""
    adapters_dir: str | None = None
    """Local directory of further LoRA adapters: a request names one by its path below it, and it is
    loaded when it is first named. Sizes are the engine's: `max_lora_rank`, `max_loras`."""

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_arguments(value, "engine")
        return value

    @field_validator("frontend")
    @classmethod
    def _check_frontend(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_arguments(value, "frontend")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "VLLMApp":
        if self.model.source is None:
            raise ValueError("model.source: required: a directory, or package://…")
        for name in PARALLEL:
            size = self.engine.get(name)
            if size is not None and not (isinstance(size, int) and size >= 1):
                raise ValueError(f"engine.{name}: must be a whole number from 1, got {size!r}")
        if self.workers > 1 and self.placement.num_gpus not in (0, 1):
            raise ValueError(
                f"placement.num_gpus: {self.placement.num_gpus} is for each of {self.workers} "
                "parallel workers, and a worker takes one whole GPU: 1 (or 0 on CPUs)"
            )
        share, asked = self.placement.num_gpus, self.engine.get("gpu_memory_utilization")
        if 0 < share < 1 and asked is not None and asked > share:
            raise ValueError(
                f"engine.gpu_memory_utilization: {asked} is more than this replica's share of the "
                f"GPU, placement.num_gpus {share}"
            )
        for name in ("lora", "adapters_dir"):
            if getattr(self, name) and self.engine.get("enable_lora") is False:
                raise ValueError(f"{name}: engine.enable_lora is false")
        return self

    @property
    def workers(self) -> int:
        """Engine processes of one replica: the product of its parallel sizes."""
        return math.prod(int(self.engine.get(name) or 1) for name in PARALLEL)
