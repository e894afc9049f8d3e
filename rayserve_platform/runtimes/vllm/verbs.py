"""The vocabulary's verbs on a running vLLM engine."""

import argparse
import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np
from vllm import PoolingParams
from vllm.renderers.chat_utils import load_chat_template
from vllm.renderers.params import ChatParams, TokenizeParams

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chat,
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.stream import join
from rayserve_platform.runtimes.vllm.chunks import ChunkMaker
from rayserve_platform.runtimes.vllm.errors import map_exceptions
from rayserve_platform.runtimes.vllm.params import to_sampling_params


class Verbs:
    """Calls the engine.

    Args:
        engine: vLLM's `AsyncLLM`.
        args: vLLM's own arguments, for the operator's chat template and its defaults.
        adapters: LoRA adapters that are loaded now, by name.
    """

    def __init__(self, engine: Any, args: argparse.Namespace, adapters: Mapping[str, Any]) -> None:
        self._engine = engine
        self._adapters = adapters
        self._chat_template = load_chat_template(args.chat_template)
        self._chat_defaults = args.default_chat_template_kwargs or {}
        self._content_format = args.chat_template_content_format

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Generate in the engine; leaving the iterator aborts the request there."""
        with map_exceptions():
            text, ids = await self._token_ids(request)
            room = self._room(ids)
            asked = request.stopping.max_new_tokens
            limit = room if asked is None else min(asked, room)
            defaults = self._engine.model_config.get_diff_sampling_param()
            params = to_sampling_params(request, max_tokens=limit, defaults=defaults)
            maker = ChunkMaker(
                request,
                clamped=asked is None or asked > room,
                eos=self._engine.renderer.get_eos_token_id(),
                token_text=self._token_text,
                prompt_text=text,
            )
            outputs = self._engine.generate(
                await self._input(ids),
                params,
                f"{request.request_id}-{uuid.uuid4().hex[:8]}",
                lora_request=self._lora(request.adapter),
                priority=request.priority,
            )
            timed = _timed(outputs, maker, request.stopping.time_limit_s)
            async with contextlib.aclosing(timed) as batches:
                if request.stream or request.stopping.time_limit_s is None:
                    async for chunks in batches:
                        yield chunks
                else:
                    yield _by_index([c async for chunks in batches for c in chunks], request.n)

    async def embed(self, request: Embed) -> Embeddings:
        """Embed each input; vLLM batches them with whatever else is running."""

        async def one(item: str | tuple[int, ...], index: int) -> tuple[Any, int]:
            ids = await self._encode(item, special=True)
            ids = ids[: request.truncate_tokens] if request.truncate_tokens else ids
            params = PoolingParams(task="embed", dimensions=request.dimensions)
            name = f"{request.request_id}-{uuid.uuid4().hex[:8]}-{index}"
            outputs = self._engine.encode(await self._input(ids), params, name)
            final = [output async for output in outputs][-1]
            return final.outputs.data.float().numpy(), len(ids)

        with map_exceptions():
            tasks = [asyncio.create_task(one(item, i)) for i, item in enumerate(request.inputs)]
            try:
                found = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        vectors = np.stack([vector for vector, _ in found]).astype(np.float32)
        return Embeddings(vectors=vectors, token_counts=tuple(count for _, count in found))

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Tokenize with the engine's own tokenizer, off the event loop."""
        with map_exceptions():
            ids = await self._encode(request.prompt, special=request.add_special_tokens)
        if request.truncate_tokens is not None:
            ids = _last(ids, request.truncate_tokens)
        return Tokens(ids=tuple(ids), texts=tuple(self._token_text(i) for i in ids))

    async def detokenize(self, request: Detokenize) -> str:
        """Decode token ids."""
        with map_exceptions():
            tokenizer = self._engine.renderer.get_tokenizer()
            text: str = await asyncio.to_thread(tokenizer.decode, list(request.ids))
        return text

    async def _token_ids(self, request: Generate) -> tuple[str | None, list[int]]:
        """Return the prompt's text, where it has one, and its tokens after truncation."""
        text = request.prompt if isinstance(request.prompt, str) else None
        ids = await self._encode(request.prompt, special=request.add_special_tokens)
        if request.truncate_prompt_tokens is not None:
            ids = _last(ids, request.truncate_prompt_tokens)
        if text is None and request.details.input_text:
            text = await asyncio.to_thread(self._engine.renderer.get_tokenizer().decode, ids)
        return text, ids

    async def _encode(self, prompt: str | tuple[int, ...] | Chat, *, special: bool) -> list[int]:
        renderer = self._engine.renderer
        rendered: Any
        if isinstance(prompt, tuple):
            return list(prompt)
        if isinstance(prompt, str):
            rendered = {"prompt": prompt}
        else:
            kwargs = {
                "add_generation_prompt": prompt.add_generation_prompt,
                "continue_final_message": prompt.continue_final_message,
                "tools": list(prompt.tools) or None,
                **self._chat_defaults,
                **prompt.template_kwargs,
            }
            params = ChatParams(
                chat_template=prompt.template or self._chat_template,
                chat_template_content_format=self._content_format,
                chat_template_kwargs=kwargs,
            )
            turns = [{"role": turn.role, "content": turn.content} for turn in prompt.turns]
            _, rendered = await renderer.render_messages_async(turns, params)
            special = False  # a chat template writes the special tokens itself
        if "prompt_token_ids" in rendered:
            return list(rendered["prompt_token_ids"])
        how = TokenizeParams(max_total_tokens=None, add_special_tokens=special)
        done = await renderer.tokenize_prompt_async(rendered, how)
        return list(done["prompt_token_ids"])

    async def _input(self, ids: list[int]) -> Any:
        """Return tokens as the engine's own input."""
        renderer = self._engine.renderer
        return await renderer.process_for_engine_async({"prompt_token_ids": ids}, time.time())

    def _room(self, ids: list[int]) -> int:
        """Return how many new tokens fit behind a prompt."""
        longest = self._engine.model_config.max_model_len
        if not ids:
            raise PlatformError(Code.INVALID_ARGUMENT, "The prompt is empty.", param="prompt")
        if len(ids) >= longest:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"This model's maximum context length is {longest} tokens, "
                f"but the prompt has {len(ids)}.",
                param="prompt",
            )
        return int(longest - len(ids))

    def _token_text(self, token_id: int) -> str:
        text: str = self._engine.renderer.get_tokenizer().convert_ids_to_tokens([token_id])[0]
        return text

    def _lora(self, adapter: str | None) -> Any:
        if adapter is None:
            return None
        if adapter not in self._adapters:
            raise PlatformError(Code.NOT_FOUND, f"The adapter '{adapter}' does not exist.")
        return self._adapters[adapter]


async def _timed(
    outputs: Any, maker: ChunkMaker, limit_s: float | None
) -> AsyncGenerator[list[Chunk], None]:
    """Yield chunks until the outputs or the time end, in the engine's queue as well."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    async with contextlib.aclosing(outputs):
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                output = await asyncio.wait_for(anext(outputs), left)
            except StopAsyncIteration:
                return
            except TimeoutError:
                yield maker.unfinished()
                return
            yield maker.chunks(output)


def _last(ids: list[int], count: int) -> list[int]:
    return ids[max(0, len(ids) - count) :]


def _by_index(chunks: list[Chunk], n: int) -> list[Chunk]:
    return [join([c for c in chunks if c.index == i]) for i in range(n)]
