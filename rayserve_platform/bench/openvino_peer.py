"""The models of the v2 part on OpenVINO in a process of its own, without any server: the ceiling.

`python -m rayserve_platform.bench.openvino_peer --models DIR --port PORT` compiles them in float32.
POST /MODEL/BATCH/SECONDS computes for so long, so many rows at once, one call after the other, and
answers with the seconds of each call; no HTTP is in the measured time. Any GET answers 200.
"""

from __future__ import annotations

import argparse
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

from rayserve_platform.bench.inference import NAMES, Name, rows
from rayserve_platform.bench.model_peer import serve
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
        batches = cycle(
            {input_name: data[first : first + size] for input_name, data in given.items()}
            for first in range(0, _ROWS, size)
        )
        latencies_s: list[float] = []
        began_s = perf_counter()
        for batch in batches:
            called_s = perf_counter()
            request.infer(batch, share_inputs=True, share_outputs=True)
            ended_s = perf_counter()
            latencies_s.append(ended_s - called_s)
            if ended_s - began_s >= seconds:
                break
        return {"elapsed_s": perf_counter() - began_s, "latencies_s": latencies_s}


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
