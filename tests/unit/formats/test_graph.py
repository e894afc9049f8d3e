"""Which framework wrote a model is found out without loading it."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.graph import Format, detect


def refusal(place: Path) -> str:
    with pytest.raises(PlatformError) as caught:
        detect(place)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(place.parent) not in caught.value.message
    return caught.value.message


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("place", "kind", "path"),
    [
        ("saved_model", Format.SAVED_MODEL, "saved_model"),
        ("saved_model/saved_model.pb", Format.SAVED_MODEL, "saved_model"),
        ("frozen.pb", Format.FROZEN, "frozen.pb"),
        ("frozen.pbtxt", Format.FROZEN, "frozen.pbtxt"),
        ("model.tflite", Format.TFLITE, "model.tflite"),
    ],
)
def test_a_model_of_tensorflow_is_known_by_its_files(
    tensorflow_models: Path, place: str, kind: Format, path: str
) -> None:
    found = detect(tensorflow_models / place)
    assert (found.format, found.path) == (kind, tensorflow_models / path)


def test_a_model_of_paddle_is_known_by_its_files(paddle_models: Path) -> None:
    found = detect(paddle_models / "paddle")
    expected = paddle_models / "paddle/model.pdmodel"
    assert (found.format, found.path) == (Format.PADDLE, expected)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("m.xml", "m.bin", "m.onnx"), Format.IR),
        (("m.onnx", "weights.data", "config.json"), Format.ONNX),
        (("config.json", "model.safetensors", "optimizer.pt"), Format.TRANSFORMERS),
        (("modules.json",), Format.TRANSFORMERS),
        (("graph.PBTXT", "README.md"), Format.FROZEN),
    ],
)
def test_of_several_files_the_converted_one_is_taken(
    tmp_path: Path, names: tuple[str, ...], kind: Format
) -> None:
    assert detect(folder(tmp_path, *names)).format is kind


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("net.caffemodel", "deploy.prototxt"), ("Caffe", "openvino-dev[caffe]==2023.3.0")),
        (("net-symbol.json", "net-0000.params"), ("MXNet", "openvino-dev[mxnet]==2023.3.0")),
        (("final.nnet",), ("Kaldi", "openvino-dev[kaldi]==2023.3.0")),
        (("final.mdl",), ("Kaldi", "then mo")),
        (("m.keras",), ("Keras", "model.export")),
        (("m.h5",), ("Keras", "SavedModel")),
        (("weights.safetensors",), ("weights alone", "torch.export.save")),
        (("m.pkl",), ("pickle", "can run code")),
        (("README.md",), ("no model", "ONNX", "TorchScript")),
        ((), ("no model",)),
        (("a.onnx", "b.onnx"), ("several models", "a.onnx, b.onnx")),
        (("m.xml",), ("m.bin is missing",)),
    ],
)
def test_what_is_not_served_is_refused_with_what_to_do(
    tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...]
) -> None:
    message = refusal(folder(tmp_path, *names))
    assert all(word in message for word in words), message


def test_a_paddle_model_in_pir_is_refused_with_how_to_export_it(pir_models: Path) -> None:
    message = refusal(pir_models / "paddle")
    assert "PIR" in message
    assert "PaddlePaddle 3.1 and FLAGS_enable_pir_api=0" in message


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "missing" in refusal(tmp_path / "nowhere")


class Trap:
    """Whoever unpickles it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_pickles_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    pickled = tmp_path / "module.pt"
    torch.save(Trap(sprung), pickled)
    assert "pickled module or state_dict" in refusal(pickled)
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps(Trap(sprung)))
    assert "bare pickle" in refusal(bare)
    weights = tmp_path / "weights.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), weights)
    assert "holds no model" in refusal(weights)
    assert not sprung.exists()


def archive(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("m/archive_format", "pt2")
        for name, content in entries.items():
            made.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "m/data/weights/model_weights_config.json",
            json.dumps({"config": {"w": {"use_pickle": True}}}).encode(),
            "pickled objects",
        ),
        ("m/data/constants/opaque_obj_0", pickle.dumps(1), "pickled objects"),
        ("m/data/weights/model.pt", b"", "pickled objects"),
        ("serialized_exported_program.json", b"{}", "pickled objects"),
        ("m/data/aotinductor/model/model.so", b"\x7fELF", "compiled code"),
    ],
)
def test_an_exported_program_with_pickles_or_code_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    assert words in refusal(archive(tmp_path / "m.pt2", **{name: content}))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torch_archives_are_told_apart_by_their_content(tmp_path: Path) -> None:
    script = torch.jit.trace(torch.nn.Linear(4, 3), torch.ones(2, 4))
    torch.jit.save(script, tmp_path / "script.pt")
    assert detect(tmp_path / "script.pt").format is Format.TORCHSCRIPT
    program = torch.export.export(torch.nn.Linear(4, 3), (torch.ones(2, 4),))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (tmp_path / "program.pt").write_bytes(buffer.getvalue())
    assert detect(tmp_path / "program.pt").format is Format.TORCH_EXPORT
