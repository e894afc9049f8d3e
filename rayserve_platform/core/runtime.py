"""The one seam: what an engine must do, and all that protocol code may ask of it.

Engines implement `Runtime`; so do `serving.remote.RemoteRuntime` (a Serve handle) and the shipped
`runtimes.fake.FakeRuntime`. Protocol code cannot tell them apart.
"""

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import Any, Protocol, runtime_checkable

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.tensors import Infer, Inference, Value

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
"""ASGI 3.0 types (asgi.readthedocs.io), spelled here so that the seam needs no web framework."""


class Runtime(Protocol):
    """An engine that serves one model, or several: every request names the one it means.

    Every verb raises `PlatformError` for the caller's mistakes and for overload. Cancelling the
    awaiting task (or closing the iterator) aborts the work in the engine.
    """

    async def describe(self) -> tuple[ModelCard, ...]:
        """Say what is served. Cheap: called whenever a card may have changed."""
        ...

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Yield the chunks that are ready, as they become ready; never an empty sequence.

        With `request.stream` false each continuation is one chunk, yielded when complete.
        """
        ...

    async def embed(self, request: Embed) -> Embeddings:
        """Return one vector an input."""
        ...

    async def score(self, request: Score) -> Scores:
        """Return the score of each document for each query."""
        ...

    async def infer(self, request: Infer) -> Inference:
        """Run the model on named tensors."""
        ...

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Split a prompt into the model's tokens."""
        ...

    async def detokenize(self, request: Detokenize) -> str:
        """Turn token ids back into text."""
        ...

    async def check_health(self) -> None:
        """Raise if the engine can serve no more requests."""
        ...


@runtime_checkable
class NativeHttp(Protocol):
    """A runtime with HTTP serving code of its own for the routes in `ModelCard.native`."""

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request as an ASGI application."""
        ...


@runtime_checkable
class ModelRepository(Protocol):
    """A runtime whose models can be loaded and unloaded while it serves.

    `describe` tells of every model of the repository, of those too that are not loaded: they have
    no version in state AVAILABLE.
    """

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Load a model, or load it anew; returns when it can serve.

        Raises:
            PlatformError: NOT_FOUND where the repository has none of this name; INVALID_ARGUMENT
                for a parameter it does not know, or files that can't be loaded. What was loaded
                before goes on serving then.
        """
        ...

    async def unload_model(self, name: str) -> None:
        """Stop serving a model; requests in progress are finished."""
        ...


class NoRepository:
    """Stands where a runtime is no `ModelRepository`, and says so."""

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Refuse."""
        raise self._refused()

    async def unload_model(self, name: str) -> None:
        """Refuse."""
        raise self._refused()

    def _refused(self) -> PlatformError:
        return PlatformError(
            Code.UNIMPLEMENTED, "This runtime does not load or unload models while it serves."
        )


class PartialRuntime:
    """Refuses every verb by name: engines derive from it and implement what they can."""

    runtime = "runtime"

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Refuse."""
        raise self._refused("generate text")

    async def embed(self, request: Embed) -> Embeddings:
        """Refuse."""
        raise self._refused("compute embeddings")

    async def score(self, request: Score) -> Scores:
        """Refuse."""
        raise self._refused("score texts")

    async def infer(self, request: Infer) -> Inference:
        """Refuse."""
        raise self._refused("run inference on tensors")

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Refuse."""
        raise self._refused("tokenize")

    async def detokenize(self, request: Detokenize) -> str:
        """Refuse."""
        raise self._refused("detokenize")

    def _refused(self, verb: str) -> PlatformError:
        return PlatformError(Code.UNIMPLEMENTED, f"The {self.runtime} runtime does not {verb}.")
