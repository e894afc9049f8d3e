"""Text-generation models that are served as they are: a GGUF file, or a folder of OpenVINO IR."""

from dataclasses import dataclass
from pathlib import Path

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.gguf_header import read_header
from rayserve_platform.formats.source import find
from rayserve_platform.formats.weights import read_json

IR = "openvino_model.xml"
TOKENIZER = "openvino_tokenizer.xml"
"""What `optimum-cli export openvino` calls a model and its tokenizer."""
LENGTHS = ("max_position_embeddings", "max_sequence_length", "n_positions", "seq_length", "n_ctx")
"""Names under which configs keep the number of positions a model was made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMFiles:
    """A model's files.

    Args:
        path: the GGUF file or the folder.
        length: the positions it was made for, where its files say.
    """

    path: Path
    length: int | None
    size_bytes: int


def locate_llm(source: str) -> LLMFiles:
    """Find a model's files.

    Raises:
        PlatformError: INVALID_ARGUMENT with `param="source"` if there is no such model.
    """
    path = find(source).absolute()
    if path.is_file() and path.suffix.lower() == ".gguf":
        header = read_header(path)
        length = header.get(f"{header.get('general.architecture')}.context_length")
        return LLMFiles(path=path, length=_positive(length), size_bytes=path.stat().st_size)
    if not path.is_dir():
        raise _refused(source, "there is no such directory or .gguf file")
    for name in (IR, TOKENIZER):
        if not (path / name).is_file():
            raise _refused(
                source,
                f"the directory has no {name}: make it of a Hugging Face model with "
                "'optimum-cli export openvino', or name a .gguf file",
            )
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    text = config.get("text_config")
    config |= text if isinstance(text, dict) else {}
    length = next((config[name] for name in LENGTHS if name in config), None)
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return LLMFiles(path=path, length=_positive(length), size_bytes=size)


def _positive(length: object) -> int | None:
    return length if isinstance(length, int) and length > 0 else None


def _refused(source: str, reason: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, f"source '{source}': {reason}", param="source")
