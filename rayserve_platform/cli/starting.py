"""Ray and Serve for `rayserve run`, started side by side where one needn't wait for the other.

What starts is what Ray's own `serve run` starts, and it is that command which deploys. A start is
mostly a dozen Python processes importing Ray, so what counts is how many there are and how many
wait. Of the time to the quickstart's first answer, 11 s on two cores, the variables' way saves
1.2 s, deploying before the proxies are up 1 s, and the worker that is warmed up 0.3 s.
"""

import contextlib
import importlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import yaml

NAMESPACE = "serve"
BUILDING = ("ray.serve", "rayserve_platform.serving.build")
"""What a worker imports to build an application of ours."""


def start(content: dict[str, Any], *, dashboard: bool) -> None:
    """Start a Ray cluster and Serve on it, and deploy; returns when Serve's proxies are up."""
    import ray
    from ray.serve.schema import ServeDeploySchema
    from ray.serve.scripts import cli

    content = with_variables_of_the_cluster(content)
    ray.init(address="local", namespace=NAMESPACE, include_dashboard=dashboard)
    proxies = _start_serve(ServeDeploySchema.model_validate(content))
    wait_for_controller(proxies)
    _warm_up_a_worker()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file, without_a_false_alarm():
        yaml.safe_dump(content, file)
        file.flush()
        # Serve's controller is there, so this doesn't wait for the proxies.
        cli(["run", file.name, "--non-blocking"], standalone_mode=False)
    proxies.result()


def with_variables_of_the_cluster(content: dict[str, Any]) -> dict[str, Any]:
    """Set the controller's variables for the cluster that is about to start; return what is left.

    All that Serve starts inherits them either way. From the config they make a runtime environment
    of their own, for which none of the workers that Ray holds ready will do, and whose workers
    start by way of another process.

    Ray replaces references to other variables in a runtime environment's, so those stay there.
    """
    options = content.get("controller_options") or {}
    variables = (options.get("runtime_env") or {}).get("env_vars") or {}
    if any("$" in value for value in variables.values()):
        return content
    os.environ.update(variables)
    return {key: value for key, value in content.items() if key != "controller_options"}


def _start_serve(schema: Any) -> Future[None]:
    """Start Serve in a thread, as `serve run` does; the result is there when its proxies are up."""
    from ray import serve

    started: Future[None] = Future()

    def work() -> None:
        try:
            serve.start(
                proxy_location=schema.proxy_location,
                http_options=schema.http_options.model_dump(),
                grpc_options=schema.grpc_options.model_dump(),
                controller_options=schema.controller_options,
            )
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
            started.set_exception(error)
        else:
            started.set_result(None)

    # Where something else fails meanwhile, nobody waits for it.
    threading.Thread(target=work, name="serve-start", daemon=True).start()
    return started


def wait_for_controller(started: Future[None]) -> None:
    """Wait until Serve's controller has its name; what is asked of it waits until it is ready."""
    import ray

    while not any(
        actor["namespace"] == NAMESPACE for actor in ray.util.list_named_actors(all_namespaces=True)
    ):
        if started.done():
            return started.result()
        time.sleep(0.02)
    return None


@contextlib.contextmanager
def without_a_false_alarm() -> Iterator[None]:
    """Keep what `serve run` says when Serve runs already: that the config's options won't apply."""

    def is_something_else(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Connecting to existing Serve app")

    log = logging.getLogger("ray.serve")
    log.addFilter(is_something_else)
    try:
        yield
    finally:
        log.removeFilter(is_something_else)


def _warm_up_a_worker() -> None:
    """Have a worker import what building takes while the controller does the same.

    It is the one that Ray holds ready beside the controller's own: on two cores both are busy, and
    the next that is needed has nothing left to import.
    """
    import ray

    ray.remote(num_cpus=0, max_retries=0)(_import).remote(BUILDING)


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
