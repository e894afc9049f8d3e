"""Encoded images as the elements of a BYTES tensor, where the model takes pixels.

As in OVMS (its "binary inputs"): a tensor of BYTES for an input of four dimensions in layout NHWC
holds JPEG or PNG files, one an image; they are decoded to BGR and resized to the model's height and
width. A picture's channels must be as many as the model's.
"""

import io
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import DTYPES, TensorSpec
from rayserve_platform.protocols.kserve.tensors import invalid

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MAX_PIXELS = 2**26
"""Of one picture: a file of a few kilobytes can claim any number."""
MAX_BYTES = 2**30
"""Of one tensor of pixels."""
TOO_SMALL = frozenset({"INT8", "BOOL"})
"""Datatypes without room for a pixel's 0 to 255."""
CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def are_images(datatype: str, rank: int, spec: TensorSpec | None) -> bool:
    """Say whether a tensor holds pictures for an input of pixels."""
    if spec is None or datatype != "BYTES" or spec.datatype == "BYTES":
        return False
    return rank == 1 and len(spec.shape) == 4


def decode(spec: TensorSpec, files: Sequence[bytes]) -> NDArray[Any]:
    """Return the pictures as one array [N, H, W, C] of the input's datatype.

    Raises:
        PlatformError: INVALID_ARGUMENT for what is no picture, or not one for this input.
    """
    _, height, width, channels = spec.shape
    if channels not in CHANNELS:
        raise invalid(
            f"Input '{spec.name}': encoded images need the layout NHWC with 1, 3 or 4 channels; "
            f"this input has the shape {list(spec.shape)}."
        )
    if spec.datatype in TOO_SMALL:
        raise invalid(
            f"Input '{spec.name}': {spec.datatype} can't hold the pixels of encoded images."
        )
    if not files:
        raise invalid(f"Input '{spec.name}': expected an encoded image, got none.")
    dtype = DTYPES[spec.datatype]
    pictures: list[NDArray[np.uint8]] = []
    for index, file in enumerate(files):
        size = (pictures[0].shape[1], pictures[0].shape[0]) if pictures else None
        pixels = _pixels(spec, index, file, (width, height), size)
        if len(files) * prod(pixels.shape) * dtype.itemsize > MAX_BYTES:
            raise invalid(
                f"Input '{spec.name}': {len(files)} images of {list(pixels.shape)} are more than "
                f"{MAX_BYTES // 2**20} MiB of {spec.datatype}."
            )
        pictures.append(pixels)
    if spec.datatype == "BF16":
        bits = np.ascontiguousarray(np.stack(pictures), np.float32).view(np.uint32) >> 16
        return bits.astype(np.uint16)  # exact: 8 bits are all that a pixel has
    # Colours in another order lie in another order too, which a runtime would have to copy.
    return np.ascontiguousarray(np.stack(pictures), dtype)


def _pixels(
    spec: TensorSpec,
    index: int,
    file: bytes,
    wanted: tuple[int, int],
    first: tuple[int, int] | None,
) -> NDArray[np.uint8]:
    """Decode one picture; where the model leaves its size open, all are as large as the first."""
    image = _open(spec, index, file)
    given = image.size
    size = tuple(want if want > 0 else (first or given)[axis] for axis, want in enumerate(wanted))
    if prod(given) > MAX_PIXELS or prod(size) > MAX_PIXELS:
        raise invalid(
            f"Input '{spec.name}': image {index} has {given[0]}x{given[1]} pixels; "
            f"the limit is {MAX_PIXELS}."
        )
    channels = spec.shape[3]
    try:
        if image.mode in ("P", "1"):
            image = image.convert("RGB" if image.mode == "P" else "L")
        if image.size != size:
            image = image.resize(size, resample=2)  # bilinear, as OVMS does
        pixels = np.asarray(image)
    except Exception:  # noqa: BLE001  # whatever a decoder raises of a file that is cut or broken
        raise _no_image(spec, index) from None
    if image.mode != CHANNELS[channels]:
        raise invalid(
            f"Input '{spec.name}': image {index} has {len(image.getbands())} channels "
            f"({image.mode}), expected {channels}."
        )
    pixels = pixels.reshape(size[1], size[0], channels)
    return pixels[:, :, [2, 1, 0, *range(3, channels)]] if channels > 1 else pixels


def _open(spec: TensorSpec, index: int, file: bytes) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise PlatformError(
            Code.UNIMPLEMENTED, "Encoded images can't be read here: pillow is not installed."
        ) from None
    try:
        return Image.open(io.BytesIO(file), formats=FORMATS)
    except Exception:  # noqa: BLE001  # as above
        raise _no_image(spec, index) from None


def _no_image(spec: TensorSpec, index: int) -> PlatformError:
    return invalid(
        f"Input '{spec.name}': element {index} is not a readable image ({', '.join(FORMATS)})."
    )
