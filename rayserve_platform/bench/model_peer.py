"""An embedding model on OpenVINO in a process of its own, without any server: the ceiling.

`python -m rayserve_platform.bench.model_peer --model DIR --port PORT` compiles the
sentence-transformers model (mean pooling, normalised) of DIR in float32. POST /BATCH/WORDS/SECONDS
embeds sentences of so many words for so long, so many at once, one call after the other, and
answers with the seconds of each call; no HTTP is in the measured time. Any GET answers 200.
"""

from __future__ import annotations

import argparse
import http.server
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from rayserve_platform.bench.sentences import sentences

Batch = TypeVar("Batch")

HOST = "127.0.0.1"
_SENTENCES = 1024
# What the tokenizer's own config says is the most that the model takes; Caikit has the same.
_MAX_TOKENS = 256


class Model:
    """The model, compiled, and its tokenizer."""

    def __init__(self, folder: str) -> None:
        import openvino
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        # Two lengths, so that the conversion fixes none.
        example = self._tokenizer(["one", "two words"], padding=True, return_tensors="pt")
        converted = openvino.convert_model(
            AutoModel.from_pretrained(folder).eval(), example_input=dict(example)
        )
        self._compiled = openvino.compile_model(
            converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a unit vector for each text: float32 [texts, dimensions]."""
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="np"
        )
        hidden = self._compiled(dict(tokens))[0]
        mask = tokens["attention_mask"][..., None].astype(np.float32)
        mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        vectors: np.ndarray[Any, np.dtype[np.float32]]
        vectors = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return vectors

    def run(self, batch: int, words: int, seconds: float) -> dict[str, object]:
        """Embed batch after batch until the time is over."""
        texts = sentences(_SENTENCES, words=words)
        batches = (texts[first : first + batch] for first in range(0, _SENTENCES, batch))
        return timed(self.embed, batches, seconds)


def main() -> None:
    """Compile the model and do runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="sentence-transformers directory")
    parser.add_argument("--port", required=True, type=int, help="HTTP port on the loopback")
    arguments = parser.parse_args()
    model = Model(arguments.model)

    def run(batch: str, words: str, seconds: str) -> dict[str, object]:
        return model.run(int(batch), int(words), float(seconds))

    serve(run, arguments.port)


def timed(
    compute: Callable[[Batch], object], batches: Iterable[Batch], seconds: float
) -> dict[str, object]:
    """Compute batch after batch, over and over, until the time is over: one at least.

    Returns the seconds of it all, and of each call.
    """
    latencies_s: list[float] = []
    began_s = perf_counter()
    for batch in cycle(batches):
        called_s = perf_counter()
        compute(batch)
        ended_s = perf_counter()
        latencies_s.append(ended_s - called_s)
        if ended_s - began_s >= seconds:
            break
    return {"elapsed_s": perf_counter() - began_s, "latencies_s": latencies_s}


def serve(run: Callable[..., dict[str, object]], port: int) -> None:
    """Answer POST on the port with what `run` says to the words of the path, one at a time."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({})

        def do_POST(self) -> None:
            self._send(run(*self.path.strip("/").split("/")))

        def _send(self, answer: dict[str, object]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.server.HTTPServer((HOST, port), Answer).serve_forever()


if __name__ == "__main__":
    main()
