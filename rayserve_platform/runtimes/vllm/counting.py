"""vLLM's engine, telling whoever answers a request what the engine has read and written for it.

vLLM's OpenAI server says so in its answers only when they are complete, in another shape for each
API, and in a stream only to clients that ask. All of its APIs ask the engine through two methods.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM


class Tally:
    """Tokens of one HTTP request that nobody has been told of yet.

    Args:
        is_watched: tokens are to be counted as they come, also of an answer that is wanted whole.
    """

    def __init__(self, *, is_watched: bool = False) -> None:
        self.is_watched = is_watched
        self._prompt = 0
        self._generated = 0

    def add(self, *, prompt: int, generated: int) -> None:
        """Count tokens."""
        self._prompt += prompt
        self._generated += generated

    def take(self) -> tuple[int, int] | None:
        """Return prompt and generated tokens since the last time, if there are any."""
        if not self._prompt and not self._generated:
            return None
        found = (self._prompt, self._generated)
        self._prompt = self._generated = 0
        return found


TALLY: ContextVar[Tally | None] = ContextVar("rayserve_vllm_tally", default=None)
"""Of the HTTP request that is being answered; the tasks that vLLM starts for it inherit it."""


class CountingLLM(AsyncLLM):  # type: ignore[misc]  # vllm is not followed
    """The engine; without a tally it is vLLM's own, at no cost."""

    def generate(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Generate, and count."""
        tally = TALLY.get()
        if tally is None:
            plain: AsyncGenerator[Any, None] = super().generate(*args, **kwargs)
            return plain
        kind = _params(args, kwargs).output_kind
        is_gathered = tally.is_watched and kind == RequestOutputKind.FINAL_ONLY
        if is_gathered:
            args, kwargs = _bit_by_bit(args, kwargs)
        is_cumulative = kind == RequestOutputKind.CUMULATIVE
        outputs = counted(super().generate(*args, **kwargs), tally, is_cumulative=is_cumulative)
        return gathered(outputs) if is_gathered else outputs

    def encode(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Pool, and count."""
        outputs: AsyncGenerator[Any, None] = super().encode(*args, **kwargs)
        tally = TALLY.get()
        return outputs if tally is None else counted(outputs, tally, is_cumulative=False)


async def counted(
    outputs: AsyncGenerator[Any, None], tally: Tally, *, is_cumulative: bool
) -> AsyncGenerator[Any, None]:
    """Pass outputs on; the prompt counts once, with the first, and is read once for all choices."""
    is_first = True
    written: dict[int, int] = {}
    async with aclosing(outputs):
        async for output in outputs:
            prompt = len(output.prompt_token_ids or ()) if is_first else 0
            is_first = False
            generated = 0
            for choice in _choices(output):
                count = len(choice.token_ids)
                generated += count - (written.get(choice.index, 0) if is_cumulative else 0)
                written[choice.index] = count
            tally.add(prompt=prompt, generated=generated)
            yield output


async def gathered(outputs: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Put an answer's parts together, in the way vLLM itself does; its choices in their order."""
    whole: Any = None
    async with aclosing(outputs):
        async for output in outputs:
            if whole is None:
                whole = output
            else:
                whole.add(output, aggregate=True)
    if whole is not None:
        whole.outputs.sort(key=lambda choice: choice.index)
        yield whole


def _params(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs["sampling_params"] if "sampling_params" in kwargs else args[1]


def _bit_by_bit(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `generate` for the same answer in parts."""
    params = _params(args, kwargs).clone()
    params.output_kind = RequestOutputKind.DELTA
    if "sampling_params" in kwargs:
        return args, {**kwargs, "sampling_params": params}
    return (args[0], params, *args[2:]), kwargs


def _choices(output: Any) -> list[Any]:
    """Return what was written; what pools writes nothing, and has no list there."""
    found = output.outputs
    return found if isinstance(found, list) else []
