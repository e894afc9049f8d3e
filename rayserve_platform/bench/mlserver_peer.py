"""Seldon's MLServer over OpenVINO models, on the loopback: a server to measure against.

Runs with the interpreter of its own environment, which has nothing of ours:
`.bench/mlserver/bin/python -I mlserver_peer.py --models DIR --http-port PORT --grpc-port PORT
--metrics-port PORT` serves every folder of DIR under its name, without a log of requests and in
one process: by default MLServer hands each request on to another, which costs more than a small
model does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

HOST = "127.0.0.1"


def main() -> None:
    """Serve the models until SIGTERM or SIGINT."""
    arguments = _arguments()
    from mlserver.utils import install_uvloop_event_loop

    # MLServer imports a model's class by its name.
    sys.path.append(str(Path(__file__).parent))
    # As its own command does.
    install_uvloop_event_loop()
    asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> None:
    from mlserver import MLServer, ModelSettings, Settings
    from mlserver.settings import ModelParameters

    settings = Settings(
        host=HOST,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
        parallel_workers=0,
        debug=False,
    )
    models = [
        ModelSettings(
            name=folder.name,
            implementation="mlserver_model.OpenVINOModel",
            parameters=ModelParameters(uri=str(folder / "model.xml")),
        )
        for folder in sorted(arguments.models.iterdir())
        if folder.is_dir()
    ]
    await MLServer(settings).start(models)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", required=True, type=Path, help="folder of the models")
    for listener in ("http", "grpc", "metrics"):
        parser.add_argument(f"--{listener}-port", required=True, type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
