"""Defaults that depend on the machine, each with its reason. What the operator sets always wins."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayserve_platform.settings.app import Placement
from rayserve_platform.settings.vllm import PARALLEL

GIB = 2**30
ENGINE_OVERHEAD_BYTES = 2 * GIB
"""What vLLM's processes take on CPU besides weights and KV cache (three imports of torch)."""
LARGEST_DEFAULT_KV_CACHE_BYTES = 4 * GIB
KV_CACHE_SHARE_OF_FREE = 0.25
EXECUTOR = "rayserve_platform.runtimes.vllm.executor.NappingExecutor"
"""vLLM's own executor would keep a second core busy with nothing but waiting for the first."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the processor's feature flags, empty where they cannot be read."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return memory that can be had without swapping, 0 where it cannot be read."""
    try:
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def weights_bytes(model_dir: Path) -> int:
    """Return the size of a model's weight files."""
    return sum(f.stat().st_size for f in model_dir.glob("*.safetensors"))


def kv_cache_bytes(placement: Placement, weights: int, free: int) -> int:
    """Size the KV cache on a CPU, where vLLM would otherwise take a share of the whole machine.

    With memory reserved for the actor: what is left of it. Without: a quarter of what is free,
    4 GiB at most, since other replicas live on the machine.
    """
    if placement.memory_gib is not None:
        left = int(placement.memory_gib * GIB) - weights - ENGINE_OVERHEAD_BYTES
        return max(left, GIB // 4)
    return max(GIB // 4, min(LARGEST_DEFAULT_KV_CACHE_BYTES, int(free * KV_CACHE_SHARE_OF_FREE)))


def engine_defaults(
    given: dict[str, Any], placement: Placement, *, cpu: bool, model_dir: Path
) -> dict[str, Any]:
    """Return defaults for the engine arguments that are not `given`."""
    if not cpu:
        defaults: dict[str, Any] = {}
        if 0 < placement.num_gpus < 1:
            # vLLM's own 0.92 is of the whole GPU, which this replica shares.
            defaults["gpu_memory_utilization"] = round(0.9 * placement.num_gpus, 3)
        if _workers(given) > 1:
            # Ray places one worker in each bundle of the replica's placement group, on any node.
            defaults["distributed_executor_backend"] = "ray"
    else:
        defaults = {
            # Compiling takes minutes on a CPU and gains little there.
            "enforce_eager": True,
            "kv_cache_memory_bytes": kv_cache_bytes(
                placement, weights_bytes(model_dir), free_memory_bytes()
            ),
        }
        if _workers(given) == 1:
            defaults["distributed_executor_backend"] = EXECUTOR
        if not cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"}:
            # Without bfloat16 instructions vLLM's CPU kernels give wrong text, slowly.
            defaults["dtype"] = "float32"
    if "VLLM_CPU_KVCACHE_SPACE" in os.environ:
        defaults.pop("kv_cache_memory_bytes", None)
    return {key: value for key, value in defaults.items() if key not in given}


def _workers(given: dict[str, Any]) -> int:
    return math.prod(int(given.get(name) or 1) for name in PARALLEL)


def thread_environment(
    placement: Placement, environment: Mapping[str, str], cores: int | None = None
) -> dict[str, str]:
    """Return the environment that fits a CPU engine's threads to its replica.

    Left alone, vLLM binds one thread to each core of the machine but one. Where the replica was
    given fewer, others run beside it, and several engines would be bound to the same cores: then
    the threads are as many as Ray sets (`OMP_NUM_THREADS`, from `num_cpus`), and free to move.
    """
    cores = cores if cores is not None else len(os.sched_getaffinity(0))
    if "VLLM_CPU_OMP_THREADS_BIND" in environment or placement.num_cpus >= cores - 1:
        return {}
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
