"""The embedding runtime: one or several models in a replica, behind the seam."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import Code, PlatformError, internal_error, no_such_model
from rayserve_platform.core.messages import Detokenize, Embed, Embeddings, Tokenize, Tokens
from rayserve_platform.core.metrics import MetricTypes
from rayserve_platform.core.runtime import PartialRuntime
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.runtimes.embedding.batch import Batcher, Done, Row
from rayserve_platform.runtimes.embedding.loading import RUNTIME, Loaded, broken, listed, load
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.embedding import EmbeddingApp

log = logging.getLogger("rayserve.embedding")

BATCH_TOKENS_A_THREAD = 256
LEAST_BATCH_TOKENS = 512
GPU_BATCH_TOKENS = 16384
QUEUED_BATCHES = 64
"""Defaults; the settings say why."""

INLINE_NUMBERS = 1 << 16
"""Vectors of up to so many numbers are compared at once: it takes less than a millisecond."""

BRIEF_CHARACTERS = 256
"""A text of up to so many is tokenized in 20 to 150 µs: a change of threads would cost as much."""

T = TypeVar("T")


class EmbeddingRuntime(PartialRuntime):
    """See the module. `start` returns when every model is loaded or known to be broken."""

    runtime = RUNTIME

    def __init__(self, settings: EmbeddingApp, metrics: MetricTypes | None = None) -> None:
        self._settings = settings
        self._cards: dict[str, ModelCard] = {}
        self._loaded: dict[str, Loaded] = {}
        self._batcher: Batcher | None = None

    async def start(self) -> None:
        """Load the models, one after the other.

        Raises:
            PlatformError: the first model's problem, if there is no model that can be served.
        """
        # One text is no work for several threads, and the replica's own number is to hold.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        threads = self._threads()
        models = await asyncio.to_thread(listed, self._settings)
        problem: PlatformError | None = None
        for model in models:
            found = await asyncio.to_thread(_loaded, model, self._settings, threads)
            if isinstance(found, Loaded):
                self._keep(found)
            else:
                problem = problem or found
                self._cards[model.id] = broken(model, found.message)
        if not self._loaded:
            raise problem or PlatformError(
                Code.INVALID_ARGUMENT, "models_dir holds no model", param="models_dir"
            )
        self._batcher = self._make_batcher(threads)

    def _keep(self, found: Loaded) -> None:
        self._cards[found.card.id] = found.card
        for name in (found.card.id, *found.card.aliases):
            self._loaded[name] = found

    def _threads(self) -> int:
        """Return the number of threads: the setting, else the CPUs that are reserved."""
        asked = self._settings.embedding.threads
        return asked or max(1, round(self._settings.placement.num_cpus))

    def _make_batcher(self, threads: int) -> Batcher:
        engine = self._settings.embedding
        default = max(LEAST_BATCH_TOKENS, BATCH_TOKENS_A_THREAD * threads)
        if self._settings.device == "cuda":
            default = GPU_BATCH_TOKENS
        batch = engine.max_batch_tokens or default
        return Batcher(
            max_batch_tokens=batch,
            max_queued_tokens=engine.max_queued_tokens or QUEUED_BATCHES * batch,
            retry_after_s=engine.retry_after_s,
            lanes=max(found.backend.lanes for found in self._loaded.values()),
        )

    async def stop(self) -> None:
        """Wait for what runs, and release the models."""
        if self._batcher is not None:
            await asyncio.to_thread(self._batcher.close)
        for found in {id(found): found for found in self._loaded.values()}.values():
            found.backend.close()
        self._loaded.clear()

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the models' cards, in the order of the settings; broken ones among them."""
        return tuple(self._cards.values())

    async def check_health(self) -> None:
        """Raise if the engine fails whatever it is given."""
        if self._batcher is None:
            raise PlatformError(Code.UNAVAILABLE, "The models are loading.")
        self._batcher.check()

    async def embed(self, request: Embed) -> Embeddings:
        """Embed each input, batched with whatever else waits."""
        model = self._model(request.model)
        if model.encoder.cross:
            raise self._refused("compute embeddings with a cross-encoder")
        size = _dimensions(model, request.dimensions)
        done = await self._run(
            model,
            lambda: model.texts.rows(request.inputs, "inputs", request.truncate_tokens),
            brief=len(request.inputs) == 1 and len(request.inputs[0]) <= BRIEF_CHARACTERS,
        )
        vectors = done.results
        if not done.rows:
            vectors = np.zeros((0, model.card.dimension or 0), np.float32)
        if size is not None:
            vectors = _normalized(vectors[:, :size])
        return Embeddings(vectors=vectors, token_counts=tuple(len(row.ids) for row in done.rows))

    async def score(self, request: Score) -> Scores:
        """Score each document for each query: cosines, or a cross-encoder's own scores."""
        model = self._model(request.model)
        texts, truncate = model.texts, request.truncate_tokens
        queries, documents = request.queries, request.documents
        shape = (len(queries), len(documents))
        if model.encoder.cross:
            done = await self._run(
                model,
                lambda: texts.pairs(queries, documents, truncate, lenient=request.lenient),
            )
            scores = done.results.reshape(shape)
        else:
            # Caikit, too, complains of documents first.
            done = await self._run(
                model,
                lambda: (
                    texts.rows(documents, "documents", truncate)
                    + texts.rows(queries, "queries", truncate)
                ),
            )
            if done.results.size <= INLINE_NUMBERS:
                scores = _cosines(done.results, shape)
            else:
                scores = await self._off_loop(lambda: _cosines(done.results, shape))
        return Scores(scores=scores, token_count=sum(len(row.ids) for row in done.rows))

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Split a text as it stands, with offsets."""
        model = self._model(request.model)
        if not isinstance(request.prompt, str):
            raise self._refused("render conversations")
        text, special = request.prompt, request.add_special_tokens
        most = request.truncate_tokens if request.truncate_side == "right" else None
        found = await self._off_loop(
            lambda: model.texts.tokens(text, special=special, truncate=most)
        )
        kept = request.kept(len(found.ids))
        return Tokens(ids=found.ids[kept], texts=found.texts[kept], offsets=found.offsets[kept])

    async def detokenize(self, request: Detokenize) -> str:
        """Join tokens."""
        model = self._model(request.model)
        return await self._off_loop(lambda: model.texts.text(request.ids))

    def _model(self, name: str) -> Loaded:
        found = self._loaded.get(name)
        if found is None:
            raise no_such_model(name)
        return found

    async def _run(
        self, model: Loaded, prepare: Callable[[], list[Row]], *, brief: bool = False
    ) -> Done:
        assert self._batcher is not None
        pad_id = model.texts.pad_id
        return await self._batcher.run(model.backend, prepare, pad_id=pad_id, brief=brief)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        assert self._batcher is not None
        return cast("T", await self._batcher.prepared(work))


def _loaded(model: Model, settings: EmbeddingApp, threads: int) -> Loaded | PlatformError:
    """Load a model; whatever is wrong with it must not keep the others from serving."""
    try:
        return load(model, settings, threads)
    except PlatformError as error:
        log.error("model %s: %s", model.id, error.message)  # noqa: TRY400  # it says all there is
        return error
    except Exception:
        log.exception("model %s can't be loaded", model.id)
        return internal_error()


def _dimensions(model: Loaded, asked: int | None) -> int | None:
    """Return the length to cut vectors to, or None if they stay as they are."""
    size = model.card.dimension
    if asked in (None, size):
        return None
    if asked not in model.encoder.dimensions:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"'dimensions' must be {size}: this model has no such size.",
            param="dimensions",
        )
    return asked


def _normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length one, as `torch.nn.functional.normalize` does."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(length, np.float32(1e-12))
    return unit


def _cosines(vectors: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the cosine of each query with each document; documents come first in `vectors`."""
    queries, documents = shape
    unit = _normalized(vectors)
    return np.ascontiguousarray(unit[documents:] @ unit[:documents].T).reshape(queries, documents)
