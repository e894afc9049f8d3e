"""Serves one model with `ray.serve.llm` until a signal comes: a server to measure against.

`python -m rayserve_platform.bench.ray_llm_peer --model DIR --name NAME --port PORT`. With
RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1 and RAY_SERVE_ENABLE_HA_PROXY=1 in the environment it
serves directly from the replica. Needs `pyarrow` and `jsonref`, which ray.serve.llm imports.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys

from rayserve_platform.bench.cluster import INIT_OPTIONS, http_options


def main() -> None:
    """Start a local Ray cluster, serve the model, wait for SIGTERM or SIGINT."""
    arguments = _arguments()
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    config = LLMConfig(
        model_loading_config={"model_id": arguments.name, "model_source": arguments.model},
        # Without it a GPU bundle is requested.
        accelerator_config={"kind": "cpu"},
        deployment_config={"num_replicas": 1},
        engine_kwargs=json.loads(arguments.engine_kwargs),
    )
    ray.init(**INIT_OPTIONS)
    serve.start(proxy_location="HeadOnly", http_options=http_options(arguments.port))
    serve.run(build_openai_app({"llm_configs": [config]}), name="llm")
    # In the place of Ray's own handler, which prints a stack trace.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="directory of the model")
    parser.add_argument("--name", required=True, help="name the model is served under")
    parser.add_argument("--port", required=True, type=int, help="HTTP port on the loopback")
    parser.add_argument("--engine-kwargs", default="{}", help="vLLM engine arguments as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
