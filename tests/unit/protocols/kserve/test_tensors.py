"""Arrays from JSON values and raw bytes, and back, for every datatype."""

import struct
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import DTYPES, Tensor
from rayserve_platform.protocols.kserve.tensors import (
    check_shape,
    check_type,
    from_bytes,
    from_values,
    pack,
    to_bytes,
    to_values,
)

brief = settings(max_examples=50, deadline=None)

LIMITS = {
    name: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    for name, dtype in DTYPES.items()
    if "INT" in name
}
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True],
    "FP16": [0.0, -1.5, 65504.0, 2.0**-24],
    "BF16": [0.0, -1.5, 3.0, 2.0**100],
    "FP32": [0.0, -1.5, 3.4028235e38, 1e-45],
    "FP64": [0.0, -1.5, 1.7976931348623157e308, 5e-324],
    "BYTES": ["", "a", "bé", "\x00"],
    **{name: [low, high, 0, 1] for name, (low, high) in LIMITS.items()},
}


HALVES = {"FP16", "BF16"}
"""Written as the shortest text that gives the same half, which is another double."""


def refusal(call, *args) -> str:
    with pytest.raises(PlatformError) as caught:
        call(*args)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def test_every_datatype_has_values_here():
    assert set(VALUES) == set(DTYPES)


@pytest.mark.parametrize("datatype", DTYPES)
def test_json_values_come_back_as_they_were(datatype):
    values = VALUES[datatype]
    nested = [values[:2], values[2:]]
    for data, shape in ((values, (4,)), (values, (2, 2)), (nested, (2, 2)), (nested, (4,))):
        array = from_values("x", datatype, shape, data)
        assert (array.dtype, array.shape) == (DTYPES[datatype], shape)
        tensor = Tensor(name="x", datatype=datatype, data=array)
        written = orjson.dumps(to_values(tensor), option=orjson.OPT_SERIALIZE_NUMPY)
        read = orjson.loads(written)
        np.testing.assert_array_equal(
            from_values("x", datatype, (2, 2), read).ravel(), array.ravel()
        )
        assert datatype in HALVES or read == values


@pytest.mark.parametrize("datatype", DTYPES)
def test_raw_data_comes_back_as_it_was_wherever_it_lies(datatype):
    array = from_values("x", datatype, (2, 2), VALUES[datatype])
    raw = bytes(to_bytes(Tensor(name="x", datatype=datatype, data=array)))
    for offset in range(9):
        data = memoryview(b"." * offset + raw)[offset:]
        found = from_bytes("x", datatype, (2, 2), data)
        assert found.flags.aligned
        assert found.dtype == DTYPES[datatype]
        np.testing.assert_array_equal(found, array)


def test_aligned_raw_data_is_not_copied():
    data = np.arange(4, dtype=np.float32).tobytes()
    found = from_bytes("x", "FP32", (2, 2), data)
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))


def test_an_output_that_is_not_contiguous_is_written_in_row_major_order():
    turned = np.arange(6, dtype=np.int32).reshape(2, 3).T
    tensor = Tensor(name="y", datatype="INT32", data=turned)
    assert to_values(tensor).tolist() == [0, 3, 1, 4, 2, 5]
    assert bytes(to_bytes(tensor)) == np.array([0, 3, 1, 4, 2, 5], np.int32).tobytes()


@brief
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_bf16_is_rounded_as_ml_dtypes_rounds_it(values):
    with np.errstate(over="ignore"):
        want = np.array(values, np.float32).astype(ml_dtypes.bfloat16)
    try:
        found = from_values("x", "BF16", (len(values),), values)
    except PlatformError:
        assert not np.isfinite(want.astype(np.float32)).all()
        return
    np.testing.assert_array_equal(found, want.view(np.uint16))


@pytest.mark.parametrize("datatype", LIMITS)
def test_whole_numbers_out_of_range_or_with_a_fraction_are_refused(datatype):
    low, high = LIMITS[datatype]
    for value in (low - 1, high + 1, 10**30, -(10**30)):
        # As JSON gives it: what is longer than 64 bits is a float there.
        (sent,) = orjson.loads(b"[%d]" % value)
        assert datatype in refusal(from_values, "x", datatype, (1,), [sent])
    others: list[Any] = [1.5, 1.0, True, "1", None, {}, [1], [[1], 2]]
    for wrong in others:
        assert "whole numbers" in refusal(from_values, "x", datatype, (2,), [1, wrong])


@pytest.mark.parametrize(("datatype", "value"), [("FP16", 65520), ("FP32", 1e39), ("BF16", 3.4e38)])
def test_numbers_out_of_range_are_refused_instead_of_becoming_infinite(datatype, value):
    message = refusal(from_values, "x", datatype, (1,), [value])
    assert message == f"Input 'x': a value is out of the range of {datatype}."


@pytest.mark.parametrize(
    ("datatype", "value", "what"),
    [
        ("BOOL", 1, "true or false"),
        ("BOOL", "true", "true or false"),
        ("FP32", True, "numbers"),
        ("FP32", "1", "numbers"),
        ("FP32", None, "numbers"),
        ("BYTES", 1, "strings"),
        ("BYTES", None, "strings"),
        ("BYTES", {"b64": ""}, "strings"),
    ],
)
def test_values_of_another_kind_are_refused(datatype, value, what):
    message = refusal(from_values, "x", datatype, (1,), [value])
    assert message == f"Input 'x': {datatype} data must be {what}, got {value!r}."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2, 3], "Input 'x': expected 4 values for shape [2, 2], got 3."),
        ([], "Input 'x': expected 4 values for shape [2, 2], got 0."),
        ([[1, 2], [3]], "Input 'x': the rows of 'data' differ in length."),
        ([[1, 2], 3], "Input 'x': the rows of 'data' differ in length."),
        ([1, [2], 3, 4], "Input 'x': FP32 data must be numbers, got [2]."),
        ([[[[]]]], "Input 'x': expected 4 values for shape [2, 2], got 0."),
    ],
)
def test_data_that_does_not_fill_its_shape_is_refused(data, message):
    assert refusal(from_values, "x", "FP32", (2, 2), data) == message


def test_nothing_is_allocated_by_a_shape_alone():
    huge = (2**62, 2**62)
    assert "expected" in refusal(from_values, "x", "FP32", huge, [1])
    assert "expected" in refusal(from_bytes, "x", "FP32", huge, b"1234")
    assert "expected" in refusal(from_bytes, "x", "BYTES", huge, b"1234")
    # A dimension of none makes the product zero, whatever the others are.
    assert "too large" in refusal(from_values, "x", "FP32", (0, *huge), [])
    assert "too large" in refusal(from_bytes, "x", "FP32", (0, *huge), b"")


@pytest.mark.parametrize("size", [-1, 1.0, "1", None, True, 2**63, [1]])
def test_a_dimension_that_is_none_is_refused(size):
    assert "'shape' must hold whole numbers" in refusal(check_shape, "x", [1, size])


def test_too_many_dimensions_and_unknown_datatypes_are_refused():
    assert "the limit is 32" in refusal(check_shape, "x", [1] * 33)
    assert check_shape("x", [1] * 32) == (1,) * 32
    assert "unknown datatype 'FP8'" in refusal(check_type, "x", "FP8")


@pytest.mark.parametrize(
    ("count", "data", "message"),
    [
        (1, struct.pack("<I", 9) + b"a", "element 0 should have 9 bytes, but only 1 are left."),
        (2, pack([b"abcd"]), "expected 2 elements for shape [2], got 1."),
        (1, pack([b"a", b"b"]), "5 bytes are left over behind 1 elements."),
        (1, b"\1\0", "expected 1 elements of at least 4 bytes for shape [1], got 2 bytes."),
        (2, pack([b"abcd"]) + b"\1\0", "the data ends within an element's length."),
        (0, b"\0", "1 bytes are left over behind 0 elements."),
    ],
)
def test_elements_of_bytes_that_do_not_fit_are_refused(count, data, message):
    assert refusal(from_bytes, "x", "BYTES", (count,), data) == f"Input 'x': {message}"


@brief
@given(st.lists(st.binary()))
def test_any_bytes_can_be_elements(items):
    found = from_bytes("x", "BYTES", (len(items),), pack(items))
    assert found.tolist() == items


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BYTES"}))
def test_raw_data_of_another_length_is_refused(datatype):
    size = DTYPES[datatype].itemsize
    for length in (0, size, 2 * size - 1, 2 * size + 1, 3 * size):
        message = refusal(from_bytes, "x", datatype, (2,), bytes(length))
        want = f"expected {2 * size} bytes of {datatype} for shape [2], got {length}."
        assert message == f"Input 'x': {want}"


def test_what_is_not_finite_becomes_null_in_json_and_stays_in_binary():
    data = np.array([np.nan, np.inf, 1], np.float32)
    tensor = Tensor(name="y", datatype="FP32", data=data)
    written = orjson.dumps(to_values(tensor), option=orjson.OPT_SERIALIZE_NUMPY)
    assert written == b"[null,null,1.0]"
    assert bytes(to_bytes(tensor)) == data.tobytes()


def test_bytes_that_are_no_text_are_refused_in_json_with_the_way_out():
    tensor = Tensor(name="y", datatype="BYTES", data=np.array([b"\xff"], object))
    assert "'binary_data'" in refusal(to_values, tensor)
