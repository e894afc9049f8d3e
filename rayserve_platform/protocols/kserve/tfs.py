"""TensorFlow Serving's REST API, which OVMS had as well: status, metadata, predict, config.

Source: TensorFlow Serving, `api_rest.md`. `instances` is the row format, a list with one entry an
example; `inputs` is the column format, whole tensors. Bytes come as `{"b64": …}`.
"""

import asyncio
import base64
from functools import partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import (
    Infer,
    Inference,
    ModelVersion,
    Tensor,
    TensorSpec,
    VersionState,
)
from rayserve_platform.edge.exchange import Exchange
from rayserve_platform.protocols.kserve import bodies, images, metadata, schema
from rayserve_platform.protocols.kserve.answer import Found, find, size_of, sized
from rayserve_platform.protocols.kserve.paths import Target
from rayserve_platform.protocols.kserve.tensors import (
    MAX_RANK,
    from_values,
    invalid,
    objects,
    shown,
)
from rayserve_platform.protocols.kserve.texts import infer, version_of

DTYPES = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BF16": "DT_BFLOAT16",
    "BYTES": "DT_STRING",
}
SIGNATURE = "serving_default"
B64 = "b64"


class Tfs:
    """The API's handlers."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def status(self, exchange: Exchange, target: Target) -> None:
        """Tell of a model's versions."""
        card = (await self._catalog.look_up(target.model, target.version)).card
        exchange.record.model = card.id
        versions = metadata.listed(card)
        if target.version is not None:
            versions = tuple(item for item in versions if item.version == target.version)
            if not versions:
                version_of(card, target.version)
        await exchange.json(200, {"model_version_status": _states(versions)})

    async def config(self, exchange: Exchange, target: Target) -> None:
        """Tell of the versions of all models, as OVMS does."""
        content = {
            served.card.id: {"model_version_status": _states(metadata.listed(served.card))}
            for served in await self._catalog.described()
        }
        await exchange.json(200, content)

    async def metadata(self, exchange: Exchange, target: Target) -> None:
        """Describe a model's tensors."""
        found = await self._find(exchange, target)
        version = version_of(found.served.card, target.version)
        signature = {
            "inputs": _signature(version.inputs),
            "outputs": _signature(version.outputs),
            "methodName": "",
            "defaults": {},
        }
        definitions = {
            "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
            "signatureDef": {SIGNATURE: signature},
        }
        name = {"name": target.model, "signatureName": "", "version": version.version}
        content = {"modelSpec": name, "metadata": {"signature_def": definitions}}
        await exchange.json(200, content)

    async def predict(self, exchange: Exchange, target: Target) -> None:
        """Run the model."""
        body = await bodies.read(exchange)
        document = await sized(len(body), schema.load, body)
        found = await self._find(exchange, target)
        card = found.served.card
        version = version_of(card, target.version)
        call = partial(
            to_infer, document, card, version, asked=target.version, request_id=exchange.request_id
        )
        if any(spec.datatype != "BYTES" and len(spec.shape) == 4 for spec in version.inputs):
            request = await asyncio.to_thread(call)
        else:
            request = await sized(len(body), call)
        inference = await infer(found.served, request)
        size = size_of(inference)
        answer = await sized(size, written, inference, by_row="instances" in document)
        await exchange.bytes(200, answer, b"application/json")

    async def _find(self, exchange: Exchange, target: Target) -> Found:
        return await find(self._catalog, exchange.record, target.model, target.version, anew=True)


def to_infer(
    document: dict[str, Any],
    card: ModelCard,
    version: ModelVersion,
    *,
    asked: str | None = None,
    request_id: str = "",
) -> Infer:
    """Turn a body of `predict` into the vocabulary's request.

    `version` tells the tensors; `asked` is the one that the request names, if it does: without,
    the runtime takes the one that it has by then.
    """
    signature = document.get("signature_name", "")
    if signature not in ("", SIGNATURE):
        raise invalid(f"'signature_name' must be '{SIGNATURE}'.", "signature_name")
    if ("instances" in document) == ("inputs" in document):
        raise invalid("Give either 'instances' or 'inputs'.", "instances")
    specs = {spec.name: spec for spec in version.inputs}
    if "instances" in document:
        columns = _columns(document["instances"], specs)
    else:
        columns = _named(document["inputs"], specs, "inputs")
    for name in columns:
        if name not in specs:
            raise invalid(f"Unknown input '{shown(name)}'; expected {', '.join(specs)}.")
    tensors = tuple(_tensor(specs[name], value) for name, value in columns.items())
    return Infer(model=card.id, inputs=tensors, version=asked, request_id=request_id)


def _columns(instances: Any, specs: dict[str, TensorSpec]) -> dict[str, Any]:
    """Turn rows into columns: the examples' tensors are stacked."""
    if type(instances) is not list or not instances:
        raise invalid("'instances' must be a list with one entry an example.", "instances")
    rows = [_named(item, specs, f"instances[{i}]") for i, item in enumerate(instances)]
    if len({frozenset(row) for row in rows}) > 1:
        raise invalid("All 'instances' must have the same inputs.", "instances")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _named(item: Any, specs: dict[str, TensorSpec], where: str) -> dict[str, Any]:
    """Return values by input; with a single input, its name may be left out."""
    if type(item) is dict and set(item) != {B64}:
        return item
    if len(specs) != 1:
        raise invalid(f"{where} must be an object with the inputs {', '.join(specs)}.")
    return {next(iter(specs)): item}


def _tensor(spec: TensorSpec, value: Any) -> Tensor:
    shape, flat = _shape(spec, value)
    if any(type(item) is dict for item in flat):
        return Tensor(name=spec.name, datatype=spec.datatype, data=_of_bytes(spec, shape, flat))
    data = from_values(spec.name, spec.datatype, shape, flat)
    return Tensor(name=spec.name, datatype=spec.datatype, data=data)


def _shape(spec: TensorSpec, value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Find the shape that lists imply, and their values."""
    shape: list[int] = []
    flat = [value]
    while flat and type(flat[0]) is list:
        widths = {len(item) if type(item) is list else -1 for item in flat}
        if len(widths) > 1:
            raise invalid(f"Input '{spec.name}': the rows differ in length.")
        shape.append(widths.pop())
        if len(shape) > MAX_RANK:
            raise invalid(f"Input '{spec.name}' has more than {MAX_RANK} dimensions.")
        flat = [inner for item in flat for inner in item]
    return tuple(shape), flat


def _of_bytes(spec: TensorSpec, shape: tuple[int, ...], flat: list[Any]) -> NDArray[Any]:
    """Make a tensor of values in base64: of bytes, or of pictures where the model takes pixels."""
    files = [_decoded(spec, item) for item in flat]
    if images.are_images("BYTES", len(shape) or 1, spec):
        return images.decode(spec, files)
    if spec.datatype != "BYTES":
        raise invalid(f"Input '{spec.name}': expected {spec.datatype}, got base64.")
    return objects(files).reshape(shape)


def _decoded(spec: TensorSpec, item: Any) -> bytes:
    if type(item) is str and spec.datatype == "BYTES":
        return item.encode()
    text = item.get(B64) if type(item) is dict and len(item) == 1 else None
    try:
        if type(text) is str:
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise invalid(f"Input '{spec.name}': expected valid base64 as {{\"{B64}\": …}}.")


def written(inference: Inference, *, by_row: bool) -> bytes:
    """Write an answer as JSON; see `render`."""
    return orjson.dumps(render(inference, by_row=by_row), option=orjson.OPT_SERIALIZE_NUMPY)


def render(inference: Inference, *, by_row: bool) -> dict[str, Any]:
    """Write an answer in the format that the request had."""
    columns = {tensor.name: _values(tensor) for tensor in inference.outputs}
    if not by_row:
        whole = next(iter(columns.values())) if len(columns) == 1 else columns
        return {"outputs": whole}
    if any(not tensor.data.ndim for tensor in inference.outputs) or (
        len({tensor.data.shape[0] for tensor in inference.outputs}) > 1
    ):
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            "The outputs have no common first dimension; send 'inputs' instead of 'instances'.",
            param="instances",
        )
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    names = tuple(columns)
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(names, row, strict=True)) for row in rows]}


def _values(tensor: Tensor) -> Any:
    if tensor.datatype == "BYTES":
        texts = np.frompyfunc(_text, 1, 1)(tensor.data)
        return texts.tolist() if tensor.data.ndim else texts
    data = tensor.data
    if tensor.datatype == "BF16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(data) if data.ndim else data[()]


def _text(item: bytes) -> Any:
    try:
        return bytes(item).decode()
    except UnicodeDecodeError:
        return {B64: base64.b64encode(item).decode()}


def _signature(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return {
        spec.name: {
            "dtype": DTYPES[spec.datatype],
            "tensorShape": {
                "dim": [{"size": str(size), "name": ""} for size in spec.shape],
                "unknownRank": False,
            },
            "name": spec.name,
        }
        for spec in specs
    }


def _states(versions: tuple[ModelVersion, ...]) -> list[dict[str, Any]]:
    return [
        {
            "version": item.version,
            "state": item.state.value,
            "status": {
                "error_code": "UNKNOWN" if _failed(item) else "OK",
                "error_message": item.reason if _failed(item) else "",
            },
        }
        for item in versions
    ]


def _failed(version: ModelVersion) -> bool:
    return bool(version.reason) and version.state is not VersionState.AVAILABLE
