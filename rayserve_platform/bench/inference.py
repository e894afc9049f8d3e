"""What the v2 part asks of each server: inferences of one row, over REST (JSON, binary) and gRPC.

Sources of the wire: the Open Inference Protocol's REST and gRPC specification and its binary tensor
data extension.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.protobuf import field, fields, varints
from rayserve_platform.bench.rpc import RpcCall

Name = Literal["mlp", "minilm"]
Wire = Literal["JSON", "binary", "gRPC"]
Row = Mapping[str, Sequence[float] | Sequence[int]]
"""One row of every input by name."""

NAMES: tuple[Name, ...] = ("mlp", "minilm")
WIRES: tuple[Wire, ...] = ("JSON", "binary", "gRPC")
CONCURRENCY = (1, 8, 32)
ANSWERS = "answers.json"
"""File beside the models: what each answers to its first row, as numbers by model."""
FEATURES = 16
TOKENS = 32

_REQUESTS = 64
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_HEADER_LENGTH = "Inference-Header-Content-Length"
# Word pieces of BERT's vocabulary, and its special tokens that a text begins and ends with.
_WORDS = range(1_000, 30_000)
_FIRST, _LAST = 101, 102


@dataclass(frozen=True, slots=True, kw_only=True)
class InferLoad:
    """So many clients that ask one model over one wire."""

    model: Name
    wire: Wire
    concurrency: int

    @property
    def label(self) -> str:
        """The model, the wire and how many ask: `mlp REST JSON c=8`."""
        wire = self.wire if self.wire == "gRPC" else f"REST {self.wire}"
        return f"{self.model} {wire} c={self.concurrency}"

    @property
    def ceiling(self) -> str:
        """The label of the run in process with as many rows at once as wait here at any time."""
        return rows_label(self.model, self.concurrency)


LOADS = tuple(
    InferLoad(model=model, wire=wire, concurrency=clients)
    for model in NAMES
    for wire in WIRES
    for clients in CONCURRENCY
)


def rows_label(model: Name, size: int) -> str:
    """Return the label of the runs of the bare model with so many rows at once."""
    return f"{model} batches of {size}"


def rows(model: Name, count: int = _REQUESTS) -> tuple[Row, ...]:
    """Return rows of a model's inputs, the same ones each time and none twice.

    A number of the MLP's is exact in float32, so that no wire rounds it. A text has no padding.
    """
    source = random.Random(7)
    if model == "mlp":
        return tuple(
            {"x": [source.randrange(-1024, 1025) / 1024 for _ in range(FEATURES)]}
            for _ in range(count)
        )
    return tuple(
        {
            "input_ids": [_FIRST, *source.choices(_WORDS, k=TOKENS - 2), _LAST],
            "attention_mask": [1] * TOKENS,
        }
        for _ in range(count)
    )


def infer_call(load: InferLoad, *, url: str, target: str, timeout_s: float) -> Call | RpcCall:
    """Return the request of a load to the server at `url` (REST) and `target` (gRPC)."""
    asked = rows(load.model)
    if load.wire == "gRPC":
        bodies = tuple(_message(load.model, row) for row in asked)
        return RpcCall(target=target, method=_METHOD, bodies=bodies, timeout_s=timeout_s)
    call = partial(
        Call, url=f"{url}/v2/models/{load.model}/infer", timeout_s=timeout_s, openai=False
    )
    if load.wire == "JSON":
        # MLServer compresses where a client allows it, which is no use on the loopback.
        return call(
            bodies=tuple(_json(row) for row in asked), headers={"Accept-Encoding": "identity"}
        )
    # Shapes are the same in every row, and so is what is said of them.
    head = _head(asked[0])
    return call(
        bodies=tuple(head + b"".join(_raw(row)) for row in asked),
        headers={"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(head))},
    )


def read_answer(load: InferLoad, body: bytes, headers: Mapping[str, str]) -> list[float]:
    """Return the numbers of an answer's only output.

    Raises:
        ValueError: it is no answer of the wire that was asked for; with what is wrong.
    """
    readers: Mapping[Wire, Callable[[], list[float]]] = {
        "gRPC": lambda: _from_message(body),
        "JSON": lambda: _from_json(body),
        "binary": lambda: _from_binary(body, headers.get(_HEADER_LENGTH, "")),
    }
    return readers[load.wire]()


def _datatype(values: Sequence[float] | Sequence[int]) -> str:
    return "INT64" if isinstance(values[0], int) else "FP32"


def _raw(row: Row) -> list[bytes]:
    """Return each input's numbers as bytes: little-endian, FP32 or INT64."""
    return [
        struct.pack(f"<{len(values)}{'q' if _datatype(values) == 'INT64' else 'f'}", *values)
        for values in row.values()
    ]


def _inputs(row: Row) -> list[dict[str, object]]:
    return [
        {"name": name, "datatype": _datatype(values), "shape": [1, len(values)]}
        for name, values in row.items()
    ]


def _json(row: Row) -> bytes:
    data = zip(_inputs(row), row.values(), strict=True)
    return json.dumps({"inputs": [{**given, "data": values} for given, values in data]}).encode()


def _head(row: Row) -> bytes:
    """Return the JSON in front of the binary data; the answer is to be binary too."""
    inputs = [
        {**given, "parameters": {"binary_data_size": len(raw)}}
        for given, raw in zip(_inputs(row), _raw(row), strict=True)
    ]
    return json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()


def _message(model: Name, row: Row) -> bytes:
    """Return a ModelInferRequest.

    model_name = 1, inputs = 5 (name = 1, datatype = 2, shape = 3), raw_input_contents = 7.
    """
    inputs = b"".join(
        field(5, field(1, name) + field(2, _datatype(values)) + field(3, varints(1, len(values))))
        for name, values in row.items()
    )
    return field(1, model) + inputs + b"".join(field(7, raw) for raw in _raw(row))


def _from_json(body: bytes) -> list[float]:
    match json.loads(body):
        case {"outputs": [{"data": list(data)}]}:
            return [float(number) for number in data]
        case _:
            raise ValueError("the answer has not one output with data")


def _from_binary(body: bytes, length: str) -> list[float]:
    if not length.isdigit():
        raise ValueError("the answer is not binary")
    return _floats(body[int(length) :])


def _from_message(body: bytes) -> list[float]:
    """Read a ModelInferResponse of one output.

    raw_output_contents = 6, or else outputs = 5 with contents = 5 and their fp32_contents = 6.
    """
    content: int | bytes = body
    for number in (6,) if 6 in fields(body) else (5, 5, 6):
        content = fields(content).get(number, b"") if isinstance(content, bytes) else b""
    if not isinstance(content, bytes) or not content:
        raise ValueError("the answer has no output with data")
    return _floats(content)


def _floats(raw: bytes) -> list[float]:
    if len(raw) % 4:
        raise ValueError("the output is not of FP32 numbers")
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))
