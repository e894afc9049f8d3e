"""Typed args to Serve applications: what the import paths in `deployments/` call."""

import logging
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import DeploymentSchema

from rayserve_platform.edge.auth.opening import check as check_policy
from rayserve_platform.serving.host import RuntimeHost
from rayserve_platform.serving.ingress import IngressReplica
from rayserve_platform.serving.placement import engine_options
from rayserve_platform.settings.app import App, Gateway, Ingress
from rayserve_platform.settings.genai import GenAIApp
from rayserve_platform.settings.llm import LLMApp
from rayserve_platform.settings.model import unknown_key

log = logging.getLogger("rayserve.build")

OPTIONS = frozenset(DeploymentSchema.model_fields) - {"name"}

HOST_DEFAULTS: dict[str, Any] = {
    # Serve's own default of 5 is far below what an engine batches; the engine queues what it
    # cannot run at once, and the queue in front of it is bounded.
    "max_ongoing_requests": 512,
    "max_queued_requests": 512,
    "backpressure_config": {"status_code": 429, "retry_after_s": 1},
    # A dead engine is noticed after three failed checks: 6 s.
    "health_check_period_s": 2,
    "health_check_timeout_s": 30,
    # A replica that goes away finishes its streams first; it waits no longer than they take.
    "graceful_shutdown_timeout_s": 600,
}
INGRESS_DEFAULTS = HOST_DEFAULTS | {
    # Above the edge's own limit, which answers in the protocol's shape.
    "max_ongoing_requests": 2048,
    "max_queued_requests": 2048,
}


def check_options(options: dict[str, Any], where: str) -> dict[str, Any]:
    """Refuse options that Serve does not have.

    Raises:
        ValueError: naming the nearest option.
    """
    for key in options:
        if key not in OPTIONS:
            raise ValueError(f"{where}: {unknown_key(key, OPTIONS, 'Serve deployment option')}")
    return options


def _merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge option layers; the later one wins, `ray_actor_options` key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        actor = {**merged.get("ray_actor_options", {}), **layer.get("ray_actor_options", {})}
        merged |= {**layer, "ray_actor_options": actor}
    return merged


def host_options(settings: App) -> dict[str, Any]:
    """Return the Serve options of the deployment that hosts the engine."""
    given = check_options(settings.deployment, "deployment")
    return _merge(HOST_DEFAULTS, engine_options(settings), given)


def ingress_options(settings: Ingress) -> dict[str, Any]:
    """Return the Serve options of a separate ingress."""
    given = check_options(settings.deployment, "ingress.deployment")
    place = {"ray_actor_options": {"num_cpus": settings.num_cpus}}
    return _merge(INGRESS_DEFAULTS, place, given)


def colocated_options(settings: App) -> dict[str, Any]:
    """Return the Serve options of an ingress that hosts the engine itself."""
    given = check_options(settings.deployment, "deployment")
    if settings.ingress.deployment:
        raise ValueError("ingress.deployment: a colocated ingress is placed by 'deployment'")
    return _merge(INGRESS_DEFAULTS, engine_options(settings), given)


def _ingress(settings: Ingress, options: dict[str, Any]) -> Any:
    """Return the ingress deployment. Serve wraps the class, so each application gets its own.

    Raises:
        ValueError: when the policy can't be used: better before a replica starts than in it.
    """
    if settings.auth is not None:
        check_policy(settings.auth)

    @serve.ingress()
    class OpenIngress(IngressReplica):
        """Serve's wrapper adds the ASGI methods, and an asynchronous `__del__` of its own."""

    class ClosingIngress(OpenIngress):
        async def __del__(self) -> None:
            await super().__del__()  # type: ignore[misc]
            await self.stop()

    return serve.deployment(ClosingIngress, name="Ingress", **options)


def app(kind: str, settings: App) -> Application:
    """Build the application of one model in the topology its settings ask for."""
    if settings.topology == "colocated":
        ingress = _ingress(settings.ingress, colocated_options(settings))
        return ingress.bind(settings.ingress, engine=(kind, settings))
    host = serve.deployment(RuntimeHost, name="Runtime", **host_options(settings))
    runtime = host.bind(kind, settings)
    if settings.topology == "runtime":
        return runtime
    ingress = _ingress(settings.ingress, ingress_options(settings.ingress))
    return ingress.bind(settings.ingress, runtime=runtime)


def llm(settings: LLMApp) -> Application:
    """Build the application of a language model by the engine that its settings lead to."""
    chosen = settings.chosen()
    if settings.engine == "auto":
        log.info("engine of %s: %s", settings.model.id, settings.explained)
    return app("genai" if isinstance(chosen, GenAIApp) else "vllm", chosen)


def gateway(settings: Gateway) -> Application:
    """Build the ingress in front of several applications."""
    ingress = _ingress(settings.ingress, ingress_options(settings.ingress))
    return ingress.bind(settings.ingress, apps=settings.models)
