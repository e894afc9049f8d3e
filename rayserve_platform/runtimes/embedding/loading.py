"""From settings to models that can be served, or the reason why one can't."""

import importlib.metadata
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats import caikit
from rayserve_platform.formats.sentence_transformers import (
    Encoder,
    is_classifier,
    read_bi_encoder,
    read_cross_encoder,
)
from rayserve_platform.formats.source import locate
from rayserve_platform.formats.weights import read_json, size_bytes, unusable
from rayserve_platform.runtimes.embedding.backend import Backend
from rayserve_platform.runtimes.embedding.texts import Texts
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.embedding import EmbeddingApp

log = logging.getLogger("rayserve.embedding")

RUNTIME = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that is ready."""

    card: ModelCard
    encoder: Encoder
    texts: Texts
    backend: Backend


def listed(settings: EmbeddingApp) -> list[Model]:
    """Return the models that are named, and those in the directory, whose names are their folders'.

    Raises:
        PlatformError: INVALID_ARGUMENT if the directory can't be read.
    """
    models = list(settings.models)
    if settings.models_dir is None:
        return models
    taken = {name for model in models for name in (model.id, *model.aliases)}
    try:
        entries = sorted(Path(settings.models_dir).expanduser().iterdir())
    except OSError as error:
        message = f"models_dir: {os.strerror(error.errno or 0)}"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="models_dir") from error
    for entry in entries:
        # Kubernetes mounts volumes with hidden folders of its own.
        if entry.is_dir() and not entry.name.startswith(".") and entry.name != "lost+found":
            if entry.name in taken:
                log.warning("models_dir: '%s' is already the name of a model", entry.name)
            else:
                models.append(Model(id=entry.name, source=str(entry)))
    return models


def load(model: Model, settings: EmbeddingApp, threads: int) -> Loaded:
    """Load one model.

    Raises:
        PlatformError: saying what is wrong with it.
    """
    began = time.monotonic()
    directory = locate(model.source or "")
    encoder = read(directory, allow_pickle=settings.embedding.allow_pickle)
    segments = settings.embedding.segment_ids and encoder.cross and encoder.has_segments
    texts = Texts(encoder.transformer, max_tokens=encoder.max_tokens, segments=segments)
    backend, version = _backend(encoder, settings, threads, segments=segments)
    dimension = _dimension(encoder, texts, backend)
    card = ModelCard(
        id=model.id,
        aliases=model.aliases,
        root=model.source or "",
        runtime=RUNTIME,
        tasks=frozenset({Task.SCORE} if encoder.cross else {Task.EMBED, Task.SCORE}),
        max_model_len=encoder.max_tokens,
        dimension=dimension,
        created=int(time.time()),
        size_bytes=size_bytes(directory),
        engine_version=version,
    )
    log.info("model %s ready on %s in %.1f s", model.id, version, time.monotonic() - began)
    return Loaded(card=card, encoder=encoder, texts=texts, backend=backend)


def broken(model: Model, problem: str) -> ModelCard:
    """Return the card of a model that can't be served."""
    return ModelCard(
        id=model.id,
        aliases=model.aliases,
        root=model.source or "",
        runtime=RUNTIME,
        tasks=frozenset(),
        problem=problem,
    )


def read(directory: Path, *, allow_pickle: bool) -> Encoder:
    """Read a model in Caikit's format, or a sentence-transformers or Hugging Face directory.

    Raises:
        PlatformError: INVALID_ARGUMENT if it is none, or of a kind that doesn't embed.
    """
    cross = False
    if caikit.is_caikit(directory):
        found = caikit.read(directory)
        directory, kind = found.artifacts, found.module.kind
        if kind == "text-generation":
            raise unusable("this is a model that generates text; it needs another runtime")
        cross = kind == "cross-encoder"
    elif not (directory / "modules.json").is_file():
        cross = is_classifier(read_json(directory / "config.json"))
    reader = read_cross_encoder if cross else read_bi_encoder
    return reader(directory, allow_pickle=allow_pickle)


def _backend(
    encoder: Encoder, settings: EmbeddingApp, threads: int, *, segments: bool
) -> tuple[Backend, str]:
    """Return the backend and its name; where the choice is ours, torch is the second choice."""
    engine = settings.embedding
    if encoder.graph is not None and settings.backend != "openvino":
        raise unusable(f"{encoder.graph.name} needs embedding.backend 'openvino', and no GPU")
    if settings.backend == "openvino":
        try:
            return _openvino(encoder, engine.precision, threads, segments=segments)
        except PlatformError as error:
            if engine.backend != "auto" or error.code is not Code.INTERNAL:
                raise
            log.warning("%s; torch computes it instead", error.message)
    from rayserve_platform.runtimes.embedding.torch_backend import TorchBackend

    made = TorchBackend(
        encoder,
        device=settings.device,
        precision=engine.precision,
        threads=threads,
        segments=segments,
    )
    return made, f"torch {importlib.metadata.version('torch')}"


def _openvino(
    encoder: Encoder, precision: str, threads: int, *, segments: bool
) -> tuple[Backend, str]:
    from rayserve_platform.runtimes.embedding import openvino_backend as openvino

    if precision == "int8" and not openvino.can_int8(_cpuinfo()):
        message = "precision int8: this processor has neither VNNI nor AMX, so float32 is faster"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="embedding.precision")
    file, model = encoder.graph, None
    if file is None:
        file = openvino.converted(
            encoder, precision=precision, segments=segments, report=_log_report
        )
    elif precision == "int8":
        raise unusable(f"precision int8: {file.name} keeps the numbers that it has")
    else:
        from rayserve_platform.runtimes.embedding.exported import read_graph

        model = read_graph(encoder, file)
    made = openvino.OpenVINOBackend(file, precision=precision, threads=threads, model=model)
    return made, f"openvino {importlib.metadata.version('openvino')}"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _log_report(phase: str, fraction: float) -> None:  # noqa: ARG001 - a log has no bar to fill
    log.info("model: %s", phase)


def _dimension(encoder: Encoder, texts: Texts, backend: Backend) -> int | None:
    """Compute one text, which also shows that the model can be."""
    row = texts.pairs(["a"], ["b"], None) if encoder.cross else texts.rows(["a"], "inputs", None)
    ids = np.array([row[0].ids], np.int64)
    result = backend.run(ids, np.ones_like(ids), np.zeros_like(ids), alone=True)
    if not np.isfinite(result).all():
        raise unusable("the model computes no numbers: its weights are damaged")
    return None if encoder.cross else int(result.shape[1])
