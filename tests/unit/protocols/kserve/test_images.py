"""Encoded images for inputs of pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.tensors import TensorSpec
from rayserve_platform.pb.kserve_inference_pb2 import InferTensorContents, ModelInferRequest
from rayserve_platform.protocols.kserve.images import are_images, decode
from rayserve_platform.protocols.kserve.messages import to_infer

RED = (200, 30, 10)
CARD = ModelCard(id="m", root="m", runtime="fake", tasks=frozenset({Task.INFER}))


def spec(*shape: int, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=shape)


def picture(size=(4, 3), mode="RGB", colour=RED, form="PNG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, form)
    return file.getvalue()


def refusal(*args) -> str:
    with pytest.raises(PlatformError) as caught:
        decode(*args)
    return caught.value.message


def test_pictures_become_bgr_of_the_models_size():
    found = decode(spec(-1, 3, 4, 3), [picture(), picture((8, 6))])
    assert (found.shape, found.dtype) == ((2, 3, 4, 3), np.dtype(np.float32))
    assert np.unique(found.reshape(-1, 3), axis=0).tolist() == [[10, 30, 200]]


@pytest.mark.parametrize(
    ("channels", "mode", "colour", "pixel"),
    [(1, "L", 7, [7]), (3, "P", 0, None), (4, "RGBA", (1, 2, 3, 4), [3, 2, 1, 4])],
)
def test_each_number_of_channels_is_read(channels, mode, colour, pixel):
    found = decode(spec(1, 3, 4, channels, datatype="UINT8"), [picture(mode=mode, colour=colour)])
    assert (found.shape, found.dtype) == ((1, 3, 4, channels), np.dtype(np.uint8))
    assert pixel is None or found[0, 0, 0].tolist() == pixel


def test_jpeg_is_read_to_within_its_own_loss():
    found = decode(spec(1, 3, 4, 3), [picture(form="JPEG")])
    np.testing.assert_allclose(found[0, 0, 0], [10, 30, 200], atol=4)


def test_pixels_as_bf16_are_the_upper_half_of_a_float32():
    found = decode(spec(1, 3, 4, 1, datatype="BF16"), [picture(mode="L", colour=7)])
    assert (found[0, 0, 0].astype(np.uint32) << 16).view(np.float32).tolist() == [7.0]


def test_where_the_size_is_open_all_are_as_large_as_the_first():
    found = decode(spec(-1, -1, -1, 3), [picture((5, 2)), picture((4, 3))])
    assert found.shape == (2, 2, 5, 3)


@pytest.mark.parametrize(
    ("shape", "files", "message"),
    [
        ((1, 3, 4, 3), [b"no image"], "element 0 is not a readable image"),
        ((1, 3, 4, 3), [picture()[:45]], "element 0 is not a readable image"),
        ((1, 3, 4, 3), [], "expected an encoded image, got none"),
        ((1, 3, 4, 1), [picture()], "has 3 channels (RGB), expected 1"),
        ((1, 3, 4, 3), [picture(mode="L", colour=1)], "has 1 channels (L), expected 3"),
        ((1, 3, 224, 224), [picture()], "need the layout NHWC"),
        ((1, 2**14, 2**14, 3), [picture()], "the limit is"),
        ((1, -1, -1, 1), [picture((2**13 + 1, 2**13), "1", 0)], "the limit is"),
    ],
)
def test_what_is_no_picture_for_this_input_is_refused(shape, files, message):
    assert message in refusal(spec(*shape), files)


@pytest.mark.parametrize("datatype", ["INT8", "BOOL"])
def test_pixels_that_the_datatype_can_not_hold_are_refused(datatype):
    message = refusal(spec(1, 3, 4, 3, datatype=datatype), [picture()])
    assert message == f"Input 'x': {datatype} can't hold the pixels of encoded images."


def _message(shape, **contents) -> ModelInferRequest:
    request = ModelInferRequest()
    request.inputs.add(
        name="x", datatype="BYTES", shape=shape, contents=InferTensorContents(**contents)
    )
    return request


def test_pictures_in_typed_contents_are_as_many_as_the_shape_says():
    def decoded(request):
        return to_infer(request, CARD, None, lambda _: spec(-1, 3, 4, 3)).inputs[0].data

    assert decoded(_message([2], bytes_contents=[picture()] * 2)).shape == (2, 3, 4, 3)
    for request, words in (
        (_message([7], bytes_contents=[picture()]), "expected 7 elements for shape [7], got 1"),
        (_message([1], bytes_contents=[picture()], int_contents=[1]), "got 'int_contents'"),
    ):
        with pytest.raises(PlatformError) as caught:
            decoded(request)
        assert words in caught.value.message


def test_many_pictures_are_bounded_before_they_are_kept():
    assert "are more than" in refusal(spec(-1, 4096, 4096, 3), [picture()] * 6)


def test_only_bytes_of_one_dimension_for_four_of_pixels_are_pictures():
    pixels = spec(1, 3, 4, 3)
    assert are_images("BYTES", 1, pixels)
    assert not are_images("BYTES", 4, pixels)
    assert not are_images("FP32", 1, pixels)
    assert not are_images("BYTES", 1, spec(-1))
    assert not are_images("BYTES", 1, spec(1, 3, 4, 3, datatype="BYTES"))
    assert not are_images("BYTES", 1, None)
