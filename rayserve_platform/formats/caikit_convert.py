"""A directory in Caikit's format from a Hugging Face or sentence-transformers one.

The weights are copied as they are: Caikit loads them with the same libraries.
"""

import datetime as dt
import json
import secrets
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats import caikit
from rayserve_platform.formats.cache import settle
from rayserve_platform.formats.progress import Report
from rayserve_platform.formats.sentence_transformers import (
    is_classifier,
    label_count,
    read_bi_encoder,
    read_cross_encoder,
)
from rayserve_platform.formats.weights import SAFE, read_json, unusable, weight_files

CAIKIT_NLP = "0.5.13"
"""The version of caikit-nlp whose format is written; it does not check the number."""

GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSeq2SeqLM")
"""How the names of architectures that generate text end."""

LEFT_OUT = frozenset({".h5", ".msgpack", ".ot", ".onnx", ".gguf", ".ckpt", ".mlmodel"})
"""Weights of frameworks that Caikit does not use."""

LEFT_OUT_FOLDERS = frozenset({"onnx", "openvino", "coreml"})

COPIED_BYTES = 16 << 20
"""Copied between two reports."""


def convert(
    model: Path, out: Path, *, kind: caikit.Kind | None, allow_pickle: bool, report: Report
) -> caikit.Kind:
    """Make the Caikit directory `out` of the directory `model`; returns the kind of module.

    `out` appears when it is whole: it is written beside itself and renamed.

    Args:
        model: a Hugging Face or sentence-transformers directory.
        out: must not exist yet.
        kind: the module to make; None reads it off the model's config.
        allow_pickle: copy weights that are pickled, where there are no others.
        report: told how much is copied.

    Raises:
        PlatformError: INVALID_ARGUMENT if `out` exists, the model is of no kind that Caikit has,
            or is not whole; UNAVAILABLE if `out` can't be written.
    """
    if out.exists() or out.is_symlink():
        raise PlatformError(Code.INVALID_ARGUMENT, f"'{out}' exists already", param="out")
    if caikit.is_caikit(model):
        raise unusable("the model is in Caikit's format already")
    kind = kind or detect(model)
    _check(model, kind, allow_pickle=allow_pickle)
    partial = out.parent / f".{out.name}.partial-{secrets.token_hex(4)}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _copy(model, partial / "artifacts", report)
        _adapt(partial / "artifacts", kind)
        settings = _settings(kind, partial / "artifacts")
        (partial / caikit.CONFIG).write_text(yaml.safe_dump(settings), encoding="utf-8")
        settle(partial)
        partial.rename(out)
    except OSError as error:
        message = f"'{out}' can't be written: {error.strerror or type(error).__name__}"
        raise PlatformError(Code.UNAVAILABLE, message, param="out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return kind


def detect(model: Path) -> caikit.Kind:
    """Return the kind of module that a model is, by its files and the architecture it names.

    Raises:
        PlatformError: INVALID_ARGUMENT if it is none.
    """
    if (model / "modules.json").is_file():
        return "embedding"
    config = read_json(model / "config.json")
    if is_classifier(config):
        if label_count(config) == 1:
            return "cross-encoder"
        raise unusable(
            f"config.json: a classifier with {label_count(config)} labels; a cross-encoder has one"
        )
    names = [str(name) for name in config.get("architectures") or ()]
    if any(name.endswith(GENERATORS) for name in names):
        return "text-generation"
    if any(name.endswith(("Model", "ForMaskedLM")) for name in names):
        return "embedding"
    known = ", ".join(module.kind for module in caikit.MODULES.values())
    raise unusable(
        f"config.json: architectures {names} tell no kind of module; name one of {known}"
    )


def _check(model: Path, kind: caikit.Kind, *, allow_pickle: bool) -> None:
    """Read the model as the runtime would, so that nothing is copied in vain."""
    match kind:
        case "embedding":
            read_bi_encoder(model, allow_pickle=allow_pickle)
        case "cross-encoder":
            read_cross_encoder(model, allow_pickle=allow_pickle)
        case "text-generation":
            read_json(model / "config.json")
            weight_files(model, allow_pickle=allow_pickle)


def _files(model: Path) -> Iterator[Path]:
    """Yield what belongs to the model, as paths within it."""
    for path in sorted(model.rglob("*")):
        inner = path.relative_to(model)
        hidden = any(part.startswith(".") for part in inner.parts)
        if hidden or inner.parts[0] in LEFT_OUT_FOLDERS or not path.is_file():
            continue
        has_safe = any((path.parent / name).is_file() for name in SAFE)
        if path.suffix not in LEFT_OUT and not (has_safe and path.suffix == ".bin"):
            yield inner


def _copy(model: Path, artifacts: Path, report: Report) -> None:
    files = list(_files(model))
    total = max(1, sum((model / inner).stat().st_size for inner in files))
    copied = 0
    report("copying", 0.0)
    for inner in files:
        target = artifacts / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        with (model / inner).open("rb") as source, target.open("wb") as sink:
            while chunk := source.read(COPIED_BYTES):
                sink.write(chunk)
                copied += len(chunk)
                report("copying", copied / total)


def _adapt(artifacts: Path, kind: caikit.Kind) -> None:
    """Write what Caikit's versions of the libraries need and the model leaves to newer ones."""
    for path in artifacts.rglob("tokenizer_config.json"):
        config = read_json(path)
        # transformers 5 writes a class name that 4, which Caikit has, does not know.
        if config.get("tokenizer_class") == "TokenizersBackend":
            _write(path, config | {"tokenizer_class": "PreTrainedTokenizerFast"})
    for path in artifacts.rglob("config.json"):
        config = read_json(path)
        if "model_type" in config:
            _write(path, _older_names(config))
    if kind == "embedding" and not (artifacts / "modules.json").is_file():
        _wrap(artifacts)


def _older_names(config: dict[str, Any]) -> dict[str, Any]:
    """Add what transformers 5 renamed in a config under the names that 4 reads."""
    added: dict[str, Any] = {}
    if isinstance(config.get("dtype"), str):
        added["torch_dtype"] = config["dtype"]
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        added["rope_theta"] = rope["rope_theta"]
        rest = {key: value for key, value in rope.items() if key != "rope_theta"}
        if rest.get("rope_type", "default") != "default":
            added["rope_scaling"] = rest
    return added | config


def _wrap(artifacts: Path) -> None:
    """Say out loud what sentence-transformers assumes of a plain model: mean pooling."""
    config = read_json(artifacts / "config.json")
    sizes = (config.get(name) for name in ("hidden_size", "dim", "d_model"))
    size = next((size for size in sizes if isinstance(size, int)), None)
    if size is None:
        raise unusable("config.json: there is no hidden_size")
    package = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{package}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{package}.Pooling"},
    ]
    length = read_bi_encoder(artifacts, allow_pickle=True).max_tokens
    pooling = {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True}
    (artifacts / "1_Pooling").mkdir()
    _write(artifacts / "1_Pooling/config.json", pooling)
    _write(
        artifacts / "sentence_bert_config.json",
        {"max_seq_length": length, "do_lower_case": False},
    )
    _write(artifacts / "modules.json", modules)


def _settings(kind: caikit.Kind, artifacts: Path) -> dict[str, Any]:
    """Return what Caikit writes into `config.yml`."""
    module = next(module for module in caikit.MODULES.values() if module.kind == kind)
    now = str(dt.datetime.now(tz=dt.UTC).replace(tzinfo=None))
    settings: dict[str, Any] = {
        "module_id": module.id,
        "module_class": module.python_class,
        "name": module.name,
        "version": module.version,
        "caikit_nlp_version": CAIKIT_NLP,
        "created": now,
        "saved": now,
        "tracking_id": str(uuid.uuid4()),
        module.key: "artifacts",
    }
    if kind == "text-generation":
        config = read_json(artifacts / "config.json")
        settings["eos_token"] = _eos_token(artifacts)
        settings["torch_dtype"] = f"torch.{config.get('torch_dtype') or 'float32'}"
        settings["training_logs"] = "training_logs.jsonl"
    return settings


def _eos_token(artifacts: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = artifacts / name
        token = read_json(path).get("eos_token") if path.is_file() else None
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return None


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
