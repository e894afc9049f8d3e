"""The real Caikit runtime, on the loopback only: a server to measure against.

Runs with the interpreter of Caikit's own environment, which has nothing of ours:
`.bench/caikit/bin/python -I caikit_peer.py --source DIR --models DIR --name NAME --config FILE
--http-port PORT --grpc-port PORT --metrics-port PORT`. Makes the Caikit model NAME from a
sentence-transformers directory in the models' folder, if that has not been done, writes the
runtime's config and becomes `python -m caikit.runtime`. The runtime has no setting for the
addresses it binds, so they are changed where it hands them to its servers; nothing else is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


def main() -> None:
    """Make the model and serve it until SIGTERM or SIGINT."""
    arguments = _arguments()
    # First, as the runtime reads its config when anything of it is imported.
    arguments.config.write_text(json.dumps(config(arguments), indent=2) + "\n", encoding="utf-8")
    os.environ["CONFIG_FILES"] = str(arguments.config)
    model = arguments.models / arguments.name
    if not model.is_dir():
        make_model(arguments.source, model)
    bind_loopback()
    sys.argv = ["caikit.runtime"]
    runpy.run_module("caikit.runtime", run_name="__main__", alter_sys=True)


def make_model(source: Path, model: Path) -> None:
    """Let Caikit make its own format; what is cut short is never taken for a model."""
    module = importlib.import_module("caikit_nlp.modules.text_embedding").EmbeddingModule
    # Beside the models' folder, not in it: the runtime loads whatever stands there.
    unfinished = model.parent.with_name(f"{model.parent.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    module.bootstrap(str(source)).save(str(unfinished))
    model.parent.mkdir(parents=True, exist_ok=True)
    unfinished.replace(model)


def config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the runtime's settings; a JSON object is YAML too."""
    return {
        "runtime": {
            "library": "caikit_nlp",
            "local_models_dir": str(arguments.models),
            "http": {"enabled": True, "port": arguments.http_port},
            # By default gRPC is on a unix socket of a fixed name as well.
            "grpc": {"enabled": True, "port": arguments.grpc_port, "unix_socket_path": ""},
            "metrics": {"enabled": True, "port": arguments.metrics_port},
        }
    }


def bind_loopback() -> None:
    """Turn every address the runtime binds into the loopback's."""
    uvicorn: Any = importlib.import_module("uvicorn")
    grpc: Any = importlib.import_module("grpc")
    metrics: Any = importlib.import_module("prometheus_client")
    configure, make_server, serve = (
        uvicorn.Config.__init__,
        grpc.server,
        metrics.start_http_server,
    )

    def configure_here(self: Any, app: Any, **options: Any) -> None:
        configure(self, app, **{**options, "host": HOST})

    def make_server_here(*arguments: Any, **options: Any) -> Any:
        server = make_server(*arguments, **options)
        add_port = server.add_insecure_port
        server.add_insecure_port = lambda address: add_port(f"{HOST}:{address.rsplit(':', 1)[1]}")
        return server

    def serve_here(port: int, **options: Any) -> Any:
        return serve(port, **{**options, "addr": HOST})

    uvicorn.Config.__init__ = configure_here
    grpc.server = make_server_here
    metrics.start_http_server = serve_here


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--source", required=True, type=Path, help="sentence-transformers directory"
    )
    parser.add_argument("--models", required=True, type=Path, help="folder of Caikit's models")
    parser.add_argument("--name", required=True, help="name the model is served under")
    parser.add_argument("--config", required=True, type=Path, help="config file to write")
    for listener in ("http", "grpc", "metrics"):
        parser.add_argument(f"--{listener}-port", required=True, type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
