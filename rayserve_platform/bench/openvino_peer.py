"""The models of the v2 part on OpenVINO in a process of its own, without any server: the ceiling.

`python -m rayserve_platform.bench.openvino_peer --models DIR --port PORT` compiles them in float32.
POST /MODEL/BATCH/SECONDS computes for so long, so many rows at once, one call after the other, and
answers with the seconds of each call; no HTTP is in the measured time. Any GET answers 200.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from rayserve_platform.bench.inference import NAMES, Name, rows
from rayserve_platform.bench.model_peer import serve, timed
from rayserve_platform.bench.openvino_models import FLOAT32, arrays

_ROWS = 256


class Models:
    """The compiled models and rows to give them."""

    def __init__(self, folder: Path) -> None:
        import openvino

        self._requests: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}
        for name in NAMES:
            compiled = openvino.compile_model(folder / name / "model.xml", "CPU", FLOAT32)
            self._requests[name] = compiled.create_infer_request()
            self._rows[name] = arrays(rows(name, _ROWS))

    def run(self, name: Name, size: int, seconds: float) -> dict[str, object]:
        """Compute batch after batch until the time is over."""
        request, given = self._requests[name], self._rows[name]
        batches = (
            {input_name: data[first : first + size] for input_name, data in given.items()}
            for first in range(0, _ROWS, size)
        )
        infer = partial(request.infer, share_inputs=True, share_outputs=True)
        return timed(infer, batches, seconds)


def main() -> None:
    """Compile the models and do runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", required=True, type=Path, help="folder of the models")
    parser.add_argument("--port", required=True, type=int, help="HTTP port on the loopback")
    arguments = parser.parse_args()
    models = Models(arguments.models)

    def run(name: Name, size: str, seconds: str) -> dict[str, object]:
        return models.run(name, int(size), float(seconds))

    serve(run, arguments.port)


if __name__ == "__main__":
    main()
