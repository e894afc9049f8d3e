"""Whatever comes, both decoders answer with a request or a refusal, and nothing else."""

import struct
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import DTYPES, ModelVersion, Tensor, TensorSpec
from rayserve_platform.pb.kserve_inference_pb2 import ModelInferRequest
from rayserve_platform.protocols.kserve import generation, messages, tfs, translate
from rayserve_platform.protocols.kserve.schema import read, read_id
from tests.conftest import fake_runtime

CARD = ModelCard(id="m", root="m", runtime="fake", tasks=frozenset({Task.INFER}))
SPECS = {
    name: TensorSpec(name=name, datatype=kind, shape=shape)
    for name, kind, shape in (
        ("x", "FP32", (-1, 4)),
        ("w", "BYTES", (-1,)),
        ("pixels", "FP32", (-1, 4, 4, 3)),
    )
}
VERSION = ModelVersion(version="1", inputs=tuple(SPECS.values()))

brief = settings(max_examples=50, deadline=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
names = st.sampled_from([*SPECS, "z"])
datatypes = st.sampled_from([*DTYPES, "FP8", ""])
shapes = st.lists(st.sampled_from([0, 1, 2, 4, -1, 2**31, 2**62, 2**63 - 1]), max_size=4)
numbers = st.lists(st.integers(-3, 300) | st.floats(allow_nan=False), max_size=8)
nested = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=6)
data = nested | st.lists(st.text(max_size=5) | st.booleans(), max_size=4)


@st.composite
def documents(draw: Any) -> dict[str, Any]:
    """Requests that are nearly right, so that they get far."""

    def tensor() -> dict[str, Any]:
        made = {"name": draw(names), "datatype": draw(datatypes), "shape": draw(shapes)}
        if draw(st.booleans()):
            made["data"] = draw(data)
        else:
            made["parameters"] = {"binary_data_size": draw(st.integers(-1, 40))}
        for key in draw(st.sets(st.sampled_from(sorted(made)), max_size=1)):
            made[key] = draw(json_values)
        return made

    made: dict[str, Any] = {"inputs": [tensor() for _ in range(draw(st.integers(0, 3)))]}
    for key in draw(
        st.sets(st.sampled_from(["id", "parameters", "outputs", "inputs"]), max_size=1)
    ):
        made[key] = draw(json_values)
    return made


def decoded(call: Any) -> tuple[Tensor, ...]:
    """Return what was decoded; a refusal must be the caller's, and have a text."""
    found: tuple[Tensor, ...] = getattr(answered(call), "inputs", ())
    for tensor in found:
        assert tensor.data.dtype == DTYPES[tensor.datatype]
    return found


def answered(call: Any) -> Any:
    """Return what a call returns, or nothing where it refuses as it may."""
    try:
        return call()
    except PlatformError as error:
        refused = error
    assert refused.code is Code.INVALID_ARGUMENT
    assert 0 < len(refused.message) < 2000
    return None


def rest_request(text: bytes, rest: bytes) -> tuple[Tensor, ...]:
    return decoded(lambda: translate.to_infer(read(text), memoryview(rest), CARD, None, SPECS.get))


@brief
@given(documents(), st.binary(max_size=80))
def test_nearly_right_json_requests(document, rest):
    try:
        text = orjson.dumps(document)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        return
    size = len(rest)
    for tensor in rest_request(text, rest):
        assert tensor.data.size * tensor.data.dtype.itemsize <= max(size, len(text)) * 8


@brief
@given(json_values.map(lambda value: repr(value).encode()) | st.binary())
def test_any_body_at_all(text):
    rest_request(text, b"")


@brief
@given(st.lists(st.binary(max_size=9)), st.binary(max_size=5))
def test_packed_elements_and_what_is_left_over(items, rest):
    packed = b"".join(struct.pack("<I", len(item)) + item for item in items) + rest
    document = {
        "inputs": [
            {
                "name": "w",
                "datatype": "BYTES",
                "shape": [len(items)],
                "parameters": {"binary_data_size": len(packed)},
            }
        ]
    }
    found = rest_request(orjson.dumps(document), packed)
    assert bool(found) == (not rest)


@brief
@given(st.binary(max_size=100))
def test_raw_bodies(body):
    for spec in SPECS.values():
        version = ModelVersion(version="1", inputs=(spec,))
        decoded(lambda version=version: translate.raw_infer(body, CARD, version))


@st.composite
def protobufs(draw: Any) -> ModelInferRequest:
    request = ModelInferRequest(model_name="m")
    for _ in range(draw(st.integers(0, 3))):
        given_ = request.inputs.add(
            name=draw(names),
            datatype=draw(datatypes),
            shape=draw(shapes),
        )
        if draw(st.booleans()):
            given_.contents.SetInParent()
            for field in draw(st.sets(st.sampled_from(messages.FIELDS), max_size=2)):
                values = {
                    "bool_contents": st.booleans(),
                    "bytes_contents": st.binary(max_size=6),
                    "fp32_contents": st.floats(width=32),
                    "fp64_contents": st.floats(),
                }.get(field, st.integers(0, 2**31 - 1))
                getattr(given_.contents, field).extend(draw(st.lists(values, max_size=8)))
        if draw(st.booleans()):
            given_.parameters["p"].SetInParent()
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=40), max_size=3)))
    return request


@brief
@given(protobufs())
def test_nearly_right_protobuf_requests(request):
    decoded(lambda: messages.to_infer(request, CARD, None, SPECS.get))


@brief
@given(st.binary())
def test_any_protobuf_that_can_be_read(wire):
    try:
        request = ModelInferRequest.FromString(wire)
    except DecodeError:
        return
    decoded(lambda: messages.to_infer(request, CARD, None, SPECS.get))


@brief
@given(
    st.dictionaries(
        st.sampled_from(["instances", "inputs", "signature_name"]),
        json_values | nested | st.dictionaries(names, data | json_values),
    )
)
def test_any_body_of_predict(document):
    decoded(lambda: tfs.to_infer(document, CARD, VERSION))


parameters = st.dictionaries(
    st.sampled_from([*generation.PARAMETERS, "stop", "stream", "z"]), json_values, max_size=3
)
generates = st.builds(
    lambda text, beside, rest: {"text_input": text, **beside, **rest},
    st.text(max_size=5) | json_values,
    parameters,
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("id", "stream"), json_values) | {"parameters": parameters}
    ),
)


@brief
@given(generates, st.booleans())
def test_any_body_of_generate(document, stream):
    served = Served(card=CARD, runtime=fake_runtime())

    def read_all() -> Any:
        text, found = generation.read(document, stream=stream)
        asked = generation.to_generate(served, text, found, stream=stream, request_id="r")
        return read_id(document), asked

    made = answered(read_all)
    assert made is None or made[1].prompt == document["text_input"]
