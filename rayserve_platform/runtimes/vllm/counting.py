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
    """Tokens of one HTTP request that nobody has been told of yet."""

    def __init__(self) -> None:
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
        outputs: AsyncGenerator[Any, None] = super().generate(*args, **kwargs)
        tally = TALLY.get()
        if tally is None:
            return outputs
        params = kwargs["sampling_params"] if "sampling_params" in kwargs else args[1]
        is_cumulative = params.output_kind == RequestOutputKind.CUMULATIVE
        return counted(outputs, tally, is_cumulative=is_cumulative)

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


def _choices(output: Any) -> list[Any]:
    """Return what was written; what pools writes nothing, and has no list there."""
    found = output.outputs
    return found if isinstance(found, list) else []
