import pickle

import numpy as np
import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import (
    DATATYPES,
    DTYPES,
    Infer,
    ModelVersion,
    Tensor,
    TensorSpec,
    VersionState,
    check,
    chosen,
)

MODEL = ModelVersion(
    version="1",
    inputs=(
        TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),
        TensorSpec(name="words", datatype="BYTES", shape=(1,)),
    ),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
)
X = Tensor(name="x", datatype="FP32", data=np.ones((3, 4), np.float32))
WORDS = Tensor(name="words", datatype="BYTES", data=np.array([b"a\x00"], object))


def refusal(call, *args) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        call(*args)
    return caught.value


def infer(*inputs: Tensor, outputs: tuple[str, ...] = ()) -> Infer:
    return Infer(model="m", inputs=inputs, outputs=outputs)


def version(number: str, state: VersionState = VersionState.AVAILABLE, reason: str = ""):
    return ModelVersion(version=number, state=state, reason=reason)


def test_every_array_type_has_one_datatype_and_only_bf16_shares_one():
    assert all(DTYPES[name] == dtype for dtype, name in DATATYPES.items())
    assert set(DTYPES) - set(DATATYPES.values()) == {"BF16"}


def test_tensors_survive_pickling():
    x, words = pickle.loads(pickle.dumps((X, WORDS)))
    np.testing.assert_array_equal(x.data, X.data)
    np.testing.assert_array_equal(words.data, WORDS.data)


def test_what_a_model_has_is_let_through():
    check(infer(X, WORDS), MODEL)
    check(infer(WORDS, X, outputs=("y",)), MODEL)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (infer(X), "Input 'words' is missing; expected 'x', 'words'."),
        (infer(X, WORDS, X), "Input 'x' is given more than once."),
        (
            infer(X, WORDS, Tensor(name="z", datatype="FP32", data=X.data)),
            "Unknown input 'z'; expected 'x', 'words'.",
        ),
        (
            infer(Tensor(name="x", datatype="FP64", data=X.data), WORDS),
            "Input 'x': expected datatype FP32, got FP64.",
        ),
        (
            infer(Tensor(name="x", datatype="FP32", data=X.data[:, :3]), WORDS),
            "Input 'x': expected shape [-1, 4], got [3, 3].",
        ),
        (
            infer(Tensor(name="x", datatype="FP32", data=X.data[0]), WORDS),
            "Input 'x': expected shape [-1, 4], got [4].",
        ),
        (infer(X, WORDS, outputs=("y", "n")), "Unknown output 'n'; expected 'y'."),
    ],
)
def test_what_a_model_does_not_have_is_refused_by_name(request_, message):
    error = refusal(check, request_, MODEL)
    assert (error.code, error.message) == (Code.INVALID_ARGUMENT, message)


def test_the_highest_available_version_answers_by_number():
    versions = [version("9"), version("10"), version("11", VersionState.LOADING)]
    assert chosen(versions, None, "m").version == "10"
    assert chosen(versions, "9", "m").version == "9"


def test_an_unknown_version_is_not_found_and_the_known_ones_are_named():
    error = refusal(chosen, [version("10"), version("9")], "3", "m")
    assert error.code is Code.NOT_FOUND
    assert error.message == "The model 'm' has no version '3'. Available: 9, 10."


def test_a_version_that_cannot_serve_says_why():
    versions = [version("2", VersionState.END, "it is no ONNX file")]
    error = refusal(chosen, versions, "2", "m")
    assert error.code is Code.UNAVAILABLE
    assert error.message == (
        "Version '2' of the model 'm' is not available (END: it is no ONNX file)."
    )
    assert refusal(chosen, versions, None, "m").code is Code.UNAVAILABLE
