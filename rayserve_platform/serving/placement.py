"""Placement settings as Ray's actor options and placement-group bundles. Pure."""

from typing import Any

from rayserve_platform.settings.app import Placement
from rayserve_platform.settings.vllm import VLLMApp

GIB = 2**30


def actor_options(placement: Placement, *, gpus: float) -> dict[str, Any]:
    """Return `ray_actor_options` of the replica that hosts an engine."""
    options: dict[str, Any] = {"num_cpus": placement.num_cpus}
    if gpus:
        options["num_gpus"] = gpus
    if placement.memory_gib is not None:
        options["memory"] = int(placement.memory_gib * GIB)
    if placement.accelerator_type is not None:
        options["accelerator_type"] = placement.accelerator_type
    if placement.resources:
        options["resources"] = dict(placement.resources)
    if placement.env:
        options["runtime_env"] = {"env_vars": dict(placement.env)}
    return options


def engine_options(settings: Any) -> dict[str, Any]:
    """Return the Serve options that place one replica's engine.

    One worker, or several in one process group of the replica (`mp`): the replica's actor holds the
    GPUs. Several workers that Ray places: one bundle each, the replica in the first one without a
    GPU of its own, so that the engine's worker actors find the GPUs free.
    """
    placement: Placement = settings.placement
    workers = settings.workers if isinstance(settings, VLLMApp) else 1
    if workers == 1 or not placement.num_gpus:
        return {"ray_actor_options": actor_options(placement, gpus=placement.num_gpus)}
    if settings.engine.get("distributed_executor_backend") == "mp":
        gpus = placement.num_gpus * workers
        return {"ray_actor_options": actor_options(placement, gpus=gpus)}
    return {
        "ray_actor_options": _in_group(placement),
        "placement_group_bundles": bundles(placement, workers),
        # As few nodes as will do: a tensor-parallel group wants the fastest links.
        "placement_group_strategy": "PACK",
    }


def _in_group(placement: Placement) -> dict[str, Any]:
    """Return the options of a replica inside its group: the bundles carry the rest."""
    options = actor_options(placement, gpus=0)
    options.pop("accelerator_type", None)
    return options


def bundles(placement: Placement, workers: int) -> list[dict[str, float]]:
    """Return one bundle a worker; the first also holds the replica's own CPUs and memory."""
    worker: dict[str, float] = {"GPU": placement.num_gpus}
    if placement.accelerator_type is not None:
        # Ray names an accelerator as a resource that its nodes have a little of.
        worker[f"accelerator_type:{placement.accelerator_type}"] = 0.001
    first = {**worker, "CPU": placement.num_cpus, **placement.resources}
    if placement.memory_gib is not None:
        first["memory"] = int(placement.memory_gib * GIB)
    return [first, *(dict(worker) for _ in range(workers - 1))]
