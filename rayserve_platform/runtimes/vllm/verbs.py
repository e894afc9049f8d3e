"""The vocabulary's verbs on a running vLLM engine."""

import argparse
import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from vllm import PoolingParams
from vllm.renderers.chat_utils import load_chat_template
from vllm.renderers.params import ChatParams, TokenizeParams

from rayserve_platform.core.errors import Code, PlatformError, check_room
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
from rayserve_platform.runtimes.vllm.adapters import Adapters
from rayserve_platform.runtimes.vllm.chunks import ChunkMaker
from rayserve_platform.runtimes.vllm.errors import map_exceptions
from rayserve_platform.runtimes.vllm.logits import processors_for
from rayserve_platform.runtimes.vllm.params import to_sampling_params

Item = TypeVar("Item")

ABORT_AGAIN_S = 0.05


class Verbs:
    """Calls the engine.

    Args:
        engine: vLLM's `AsyncLLM`.
        args: vLLM's own arguments, for the operator's chat template and its defaults.
        adapters: the LoRA adapters that requests may name.
    """

    def __init__(self, engine: Any, args: argparse.Namespace, adapters: Adapters) -> None:
        self._engine = engine
        self._adapters = adapters
        self._has_processors = bool(processors_for(engine.vllm_config))
        self._texts: dict[int, str] = {}
        self._adds_bos: bool | None = None
        self._chat_template = load_chat_template(args.chat_template)
        self._chat_defaults = args.default_chat_template_kwargs or {}
        self._content_format = args.chat_template_content_format

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Generate in the engine; leaving the iterator aborts the request there."""
        began = time.monotonic()
        with map_exceptions():
            lora = await self._adapters.find(request.adapter)
            text, ids = await self._token_ids(request)
            room = self._room(ids, request.stopping.min_new_tokens)
            asked = request.stopping.max_new_tokens
            params = to_sampling_params(
                request,
                max_tokens=room if asked is None else min(asked, room),
                defaults=self._engine.model_config.get_diff_sampling_param(),
                processors=self._has_processors,
            )
            maker = ChunkMaker(
                request,
                clamped=asked is None or asked > room,
                eos=self._engine.renderer.get_eos_token_id(),
                token_text=self._token_text,
                prompt_text=text,
            )
            engine_id = f"{request.request_id}-{uuid.uuid4().hex[:8]}"
            outputs = self._engine.generate(
                await self._input(ids, request.cache_salt),
                params,
                engine_id,
                lora_request=lora,
                priority=request.priority,
            )
            limit_s = request.stopping.time_limit_s
            async with self._limited(engine_id, maker, began, limit_s), aclosing(outputs):
                async for output in outputs:
                    yield maker.chunks(output)

    @asynccontextmanager
    async def _limited(
        self, engine_id: str, maker: ChunkMaker, began: float, limit_s: float | None
    ) -> AsyncIterator[None]:
        """End a request whose time is up, waiting ones too: vLLM then answers what there is."""

        async def limit(limit_s: float) -> None:
            await asyncio.sleep(began + limit_s - time.monotonic())
            maker.timed_out = True
            while True:  # vLLM may be about to take the request in, and not know it yet
                await self._engine.abort(engine_id)
                await asyncio.sleep(ABORT_AGAIN_S)

        if limit_s is None:
            yield
            return
        limiting = asyncio.create_task(limit(limit_s))
        try:
            yield
        finally:
            limiting.cancel()
            await asyncio.gather(limiting, return_exceptions=True)

    async def embed(self, request: Embed) -> Embeddings:
        """Embed each input; vLLM batches them with whatever else is running."""

        async def one(item: str | tuple[int, ...], index: int) -> tuple[Any, int]:
            ids = await self._encode(item, special=True)
            ids = ids[: request.truncate_tokens] if request.truncate_tokens else ids
            params = PoolingParams(task="embed", dimensions=request.dimensions)
            name = f"{request.request_id}-{uuid.uuid4().hex[:8]}-{index}"
            prompt = await self._input(ids, request.cache_salt)
            outputs = self._engine.encode(prompt, params, name)
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
            await self._adapters.check(request.adapter)
            ids, offsets = await self._encode_with_offsets(
                request.prompt, special=request.add_special_tokens
            )
        kept = request.kept(len(ids))
        ids, offsets = ids[kept], offsets[kept]
        return Tokens(
            ids=tuple(ids), texts=tuple(map(self._token_text, ids)), offsets=tuple(offsets)
        )

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
            ids = await self._truncated(request, ids)
        if text is None and request.details.input_text:
            text = await asyncio.to_thread(self._engine.renderer.get_tokenizer().decode, ids)
        return text, ids

    async def _truncated(self, request: Generate, ids: list[int]) -> list[int]:
        """Keep the last tokens, and in front of them the beginning-of-text token that was added."""
        count = request.truncate_prompt_tokens
        if count is None or len(ids) <= count:
            return ids
        if self._adds_bos is None:
            bos = self._engine.renderer.get_bos_token_id()
            self._adds_bos = bos is not None and (await self._encode("", special=True))[:1] == [bos]
        if self._adds_bos and isinstance(request.prompt, str) and request.add_special_tokens:
            return [ids[0], *_last(ids, count - 1)]
        return _last(ids, count)

    async def _encode(self, prompt: str | tuple[int, ...] | Chat, *, special: bool) -> list[int]:
        ids, _ = await self._encode_with_offsets(prompt, special=special, offsets=False)
        return ids

    async def _encode_with_offsets(
        self, prompt: str | tuple[int, ...] | Chat, *, special: bool, offsets: bool = True
    ) -> tuple[list[int], list[tuple[int, int]]]:
        renderer = self._engine.renderer
        rendered: Any
        if isinstance(prompt, tuple):
            return list(prompt), []
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
            return list(rendered["prompt_token_ids"]), []
        how = TokenizeParams(
            max_total_tokens=None, add_special_tokens=special, return_token_offsets=offsets
        )
        done = await renderer.tokenize_prompt_async(rendered, how)
        return list(done["prompt_token_ids"]), list(done.get("prompt_token_offsets") or [])

    async def _input(self, ids: list[int], salt: str | None) -> Any:
        """Return tokens as the engine's own input."""
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if salt is not None:
            prompt["cache_salt"] = salt
        return await self._engine.renderer.process_for_engine_async(prompt, time.time())

    def _room(self, ids: list[int], min_new_tokens: int) -> int:
        """Return how many new tokens fit behind a prompt."""
        if not ids:
            raise PlatformError(Code.INVALID_ARGUMENT, "The prompt is empty.", param="prompt")
        limit = int(self._engine.model_config.max_model_len)
        return check_room(limit=limit, token_count=len(ids), min_new_tokens=min_new_tokens)

    def _token_text(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = self._engine.renderer.get_tokenizer().convert_ids_to_tokens([token_id])[0] or ""
            self._texts[token_id] = text
        return text


def _last(items: list[Item], count: int) -> list[Item]:
    return items[max(0, len(items) - count) :]
