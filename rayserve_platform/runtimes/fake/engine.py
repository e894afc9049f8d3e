"""The fake engine behind the seam."""

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, InputTooLong, PlatformError, check_room, overloaded
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Prompt,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.metrics import MetricTypes
from rayserve_platform.core.runtime import PartialRuntime
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.stream import join
from rayserve_platform.core.tensors import (
    Infer,
    Inference,
    ModelVersion,
    Tensor,
    TensorSpec,
    Value,
    VersionState,
    check,
    chosen,
)
from rayserve_platform.formats.adapter import no_store, not_retrieved
from rayserve_platform.runtimes.fake.writing import Writer, render
from rayserve_platform.settings.fake import FakeApp, FakeEngine


class FakeRuntime(PartialRuntime):
    """See the package. `running` is the number of requests in progress, for tests of cancelling."""

    runtime = "fake"

    def __init__(self, settings: FakeApp, metrics: MetricTypes | None = None) -> None:
        self._settings = settings
        self._fake = settings.fake
        self._created = int(time.time())
        self._versions = dict.fromkeys(settings.fake.versions, VersionState.AVAILABLE)
        self.running = 0
        self.seen: list[Generate | Embed | Score | Infer | Tokenize | Detokenize] = []
        self.healthy = True

    async def start(self) -> None:
        """Take as long as a model would."""
        await asyncio.sleep(self._fake.load_s)

    async def stop(self) -> None:
        """Nothing to release."""

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the card the settings describe."""
        model = self._settings.model
        card = ModelCard(
            id=model.id,
            aliases=model.aliases,
            root=model.source or model.id,
            runtime=self.runtime,
            tasks=frozenset(Task(task) for task in self._fake.tasks),
            max_model_len=self._fake.max_model_len,
            chat=True,
            dimension=self._fake.dimension,
            created=self._created,
            platform="fake",
            versions=tuple(_version(self._fake, *item) for item in self._versions.items()),
        )
        return (card,)

    async def check_health(self) -> None:
        """Raise once a test has set `healthy` to False."""
        if not self.healthy:
            raise PlatformError(Code.UNAVAILABLE, "The engine is not running.")

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Write `SENTENCE` from a place that the prompt and the seed decide."""
        self._admit(Task.GENERATE, "generate text")
        self._note(request)
        self._find(request.adapter)
        if request.guided is not None:
            raise self._refused("decode with a guide")
        prompt = render(request.prompt)
        if request.truncate_prompt_tokens is not None:
            prompt = prompt[-request.truncate_prompt_tokens :]
        room = check_room(
            limit=self._fake.max_model_len,
            token_count=len(prompt),
            min_new_tokens=request.stopping.min_new_tokens,
        )
        self.running += 1
        try:
            for index in range(request.n):
                writer = Writer(request, prompt, index, room)
                async for chunks in self._write(writer, stream=request.stream):
                    yield chunks
        finally:
            self.running -= 1

    async def _write(
        self, writer: Writer, *, stream: bool
    ) -> AsyncGenerator[Sequence[Chunk], None]:
        """Yield one continuation, a token at a time or, unstreamed, whole."""
        started = time.monotonic()
        written: list[Chunk] = []
        for position in range(writer.limit):
            delay = self._fake.token_s if position else self._fake.first_token_s
            if delay:
                await asyncio.sleep(delay)
            if position == self._fake.fail_after_tokens:
                raise RuntimeError("scripted failure")
            chunk = writer.next(time.monotonic() - started)
            if stream:
                yield (chunk,)
            else:
                written.append(chunk)
            if chunk.stop is not None:
                break
        if not stream:
            yield (join(written),)

    async def embed(self, request: Embed) -> Embeddings:
        """Return unit vectors drawn from each input's checksum."""
        self._admit(Task.EMBED, "compute embeddings")
        self._note(request)
        self._fit("inputs", request.inputs, request.truncate_tokens)
        if request.dimensions not in (None, self._fake.dimension):
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"'dimensions' must be {self._fake.dimension}: this model has no other size.",
                param="dimensions",
            )
        texts = [render(item)[: request.truncate_tokens] for item in request.inputs]
        return Embeddings(vectors=self._vectors(texts), token_counts=tuple(len(t) for t in texts))

    async def score(self, request: Score) -> Scores:
        """Return the dot products of the vectors that `embed` gives the texts."""
        self._admit(Task.SCORE, "score texts")
        self._note(request)
        self._fit("queries", request.queries, request.truncate_tokens)
        self._fit("documents", request.documents, request.truncate_tokens)
        queries = [text[: request.truncate_tokens] for text in request.queries]
        documents = [text[: request.truncate_tokens] for text in request.documents]
        return Scores(
            scores=self._vectors(queries) @ self._vectors(documents).T,
            token_count=sum(map(len, [*queries, *documents])),
        )

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        size = self._fake.dimension
        drawn = [np.random.default_rng(zlib.crc32(t.encode())).normal(size=size) for t in texts]
        vectors = np.array(drawn).reshape(len(texts), size)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)

    def _fit(self, field: str, texts: Sequence[Prompt], truncate_tokens: int | None) -> None:
        limit = self._fake.max_model_len
        if truncate_tokens is None:
            long = sorted(((len(render(t)), i) for i, t in enumerate(texts)), reverse=True)
            indexes = tuple(i for length, i in long if length > limit)
            if indexes:
                raise InputTooLong(limit=limit, field=field, indexes=indexes)

    async def infer(self, request: Infer) -> Inference:
        """Answer each input with an output: see `settings.fake`."""
        self._admit(Task.INFER, "run inference on tensors")
        self._note(request)
        (card,) = await self.describe()
        version = chosen(card.versions, request.version, card.id)
        check(request, version)
        self.running += 1
        try:
            await asyncio.sleep(self._fake.infer_s)
        finally:
            self.running -= 1
        if self._fake.fail_infer:
            raise RuntimeError("scripted failure")
        made = {f"out_{t.name}": _affine(t, version.version) for t in request.inputs}
        wanted = request.outputs or tuple(spec.name for spec in version.outputs)
        outputs = tuple(replace(made[name], name=name) for name in wanted)
        return Inference(model=card.id, version=version.version, outputs=outputs)

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Make all versions available."""
        self._turn(name, VersionState.AVAILABLE)

    async def unload_model(self, name: str) -> None:
        """Make all versions unavailable."""
        self._turn(name, VersionState.END)

    def _turn(self, name: str, state: VersionState) -> None:
        if name != self._settings.model.id:
            raise PlatformError(
                Code.NOT_FOUND, f"The repository has no model '{name}'.", param="model"
            )
        self._versions = dict.fromkeys(self._versions, state)

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Split into characters."""
        self._note(request)
        self._find(request.adapter)
        text = render(request.prompt)
        kept = request.kept(len(text))
        return Tokens(
            ids=tuple(map(ord, text[kept])),
            texts=tuple(text[kept]),
            offsets=tuple((i, i + 1) for i in range(len(text))[kept]),
        )

    async def detokenize(self, request: Detokenize) -> str:
        """Join characters."""
        self._note(request)
        return render(request.ids)

    def _find(self, adapter: str | None) -> None:
        if adapter is None or adapter in self._fake.adapters:
            return
        if not self._fake.adapters:
            raise no_store()
        raise not_retrieved(adapter, "directory does not exist")

    def _note(self, request: Generate | Embed | Score | Infer | Tokenize | Detokenize) -> None:
        """Keep the last requests, for tests of translation."""
        self.seen = [*self.seen[-15:], request]

    def _admit(self, task: Task, verb: str) -> None:
        if task.value not in self._fake.tasks:
            raise self._refused(verb)
        if self._fake.overloaded:
            raise overloaded()


def _version(fake: FakeEngine, version: str, state: VersionState) -> ModelVersion:
    if Task.INFER not in fake.tasks:
        return ModelVersion(version=version, state=state)
    specs = [(name, item.datatype, item.shape) for name, item in fake.inputs.items()]
    return ModelVersion(
        version=version,
        state=state,
        inputs=tuple(TensorSpec(name=n, datatype=d, shape=s) for n, d, s in specs),
        outputs=tuple(TensorSpec(name=f"out_{n}", datatype=d, shape=s) for n, d, s in specs),
    )


def _affine(tensor: Tensor, version: str) -> Tensor:
    if tensor.data.dtype.kind != "f":
        return tensor
    with np.errstate(over="ignore", invalid="ignore"):
        return replace(tensor, data=(2 * tensor.data + int(version)).astype(tensor.data.dtype))
