"""KServe's own Python model server over OpenVINO models, on the loopback: to measure against.

Runs with the interpreter of its own environment, which has nothing of ours:
`.bench/kserve/bin/python -I kserve_peer.py --models DIR --http-port PORT --grpc-port PORT
--metrics-port PORT` serves every folder of DIR under its name, in one process, without a log of
requests. (Its metrics are on the HTTP port.) It has no setting for the addresses that it binds and
for uvicorn's log, so they are changed where it hands them to its servers; nothing else is.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


def main() -> None:
    """Serve the models until SIGTERM or SIGINT."""
    arguments = _arguments()
    # It reads the command line when it is imported.
    del sys.argv[1:]
    bind_loopback()
    from kserve import ModelServer

    model = model_class()
    server = ModelServer(
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        enable_latency_logging=False,
    )
    # Which it has just configured: a line or two for each request.
    for name in ("kserve", "kserve.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server.start(
        [model(folder) for folder in sorted(arguments.models.iterdir()) if folder.is_dir()]
    )


def model_class() -> Any:
    """Return the class of a model as KServe's documentation has one written."""
    import openvino
    from kserve import InferOutput, InferRequest, InferResponse, Model
    from kserve.utils.utils import generate_uuid

    class OpenVINOModel(Model):  # type: ignore[misc]  # kserve is Any here
        """The model in a folder, compiled in float32."""

        def __init__(self, folder: Path) -> None:
            super().__init__(folder.name)
            self._compiled = openvino.compile_model(
                folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
            self.ready = True

        def predict(self, payload: InferRequest, *_: object) -> InferResponse:
            """Compute the outputs of one request."""
            found = self._compiled({given.name: given.as_numpy() for given in payload.inputs})
            outputs = [
                InferOutput(name=port.any_name, shape=list(data.shape), datatype="FP32", data=data)
                for port, data in found.items()
            ]
            if payload.use_binary_outputs:
                # Its REST encodes arrays by itself, its gRPC takes none.
                for output in outputs:
                    output.set_data_from_numpy(output.data, binary_data=True)
            return InferResponse(
                response_id=payload.id or generate_uuid(),
                model_name=self.name,
                infer_outputs=outputs,
                use_binary_outputs=payload.use_binary_outputs,
            )

    return OpenVINOModel


def bind_loopback() -> None:
    """Turn every address that the server binds into the loopback's."""
    import grpc
    import uvicorn

    config: Any = uvicorn.Config
    configure, make_server = config.__init__, grpc.aio.server

    def configure_here(self: Any, app: Any, **options: Any) -> None:
        configure(self, app, **{**options, "host": HOST, "access_log": False})

    def make_server_here(*arguments: Any, **options: Any) -> Any:
        server: Any = make_server(*arguments, **options)
        add_port = server.add_insecure_port
        server.add_insecure_port = lambda address: add_port(f"{HOST}:{address.rsplit(':', 1)[1]}")
        return server

    config.__init__ = configure_here
    grpc.aio.server = make_server_here


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", required=True, type=Path, help="folder of the models")
    for listener in ("http", "grpc", "metrics"):
        parser.add_argument(f"--{listener}-port", required=True, type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
