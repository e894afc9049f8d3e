"""A loaded model and its decoding loop: requests become jobs, results come back to them."""

import asyncio
import contextlib
from collections.abc import Sequence
from itertools import groupby

import torch

from rayserve_platform.core.ending import Ending
from rayserve_platform.core.errors import Code, PlatformError, PromptTooLong, check_room
from rayserve_platform.core.messages import Generate
from rayserve_platform.core.prompts import limit_of
from rayserve_platform.core.writing import Writing
from rayserve_platform.formats.template import read_template
from rayserve_platform.runtimes.torch import guided
from rayserve_platform.runtimes.torch.batches import Batches
from rayserve_platform.runtimes.torch.company import find_company
from rayserve_platform.runtimes.torch.details import Describer
from rayserve_platform.runtimes.torch.job import Answer, Job
from rayserve_platform.runtimes.torch.loading import Loaded
from rayserve_platform.runtimes.torch.loop import DecodingLoop
from rayserve_platform.runtimes.torch.network import Network
from rayserve_platform.runtimes.torch.results import Results
from rayserve_platform.runtimes.torch.sampling import Chooser, Model, check
from rayserve_platform.runtimes.torch.texts import Texts
from rayserve_platform.settings.torch import TorchApp


class Service:
    """Serves one model. Made in a worker thread: it tries the model out.

    Args:
        loaded: the model.
        settings: the app's.
        events: the event loop that results go to.
    """

    def __init__(
        self, loaded: Loaded, settings: TorchApp, events: asyncio.AbstractEventLoop
    ) -> None:
        self._loaded = loaded
        self._events = events
        self._max_answers = settings.engine.max_batch_size
        self.texts = Texts(
            loaded.tokenizer,
            chat_template=read_template(settings.chat_template),
            vocabulary=loaded.vocabulary,
        )
        self._guides = guided.Guides(
            loaded.tokenizer, vocabulary=loaded.vocabulary, end_ids=loaded.end_ids
        )
        network = Network(loaded.model, start_id=loaded.start_id, pad_id=loaded.pad_id)
        self.is_encoder_decoder = network.is_encoder_decoder
        self._model = Model(
            model=loaded.model,
            end_ids=loaded.end_ids,
            vocabulary=loaded.vocabulary,
            device=network.device,
        )
        with torch.inference_mode():
            self.company = find_company(network, loaded.vocabulary)
        self.loop = DecodingLoop(
            Batches(network, self.company, settings.engine.prefill_tokens),
            max_batch_size=settings.engine.max_batch_size,
            max_waiting=settings.engine.max_waiting,
            deliver=self._deliver,
        )

    @property
    def max_model_len(self) -> int:
        """See `settings.torch.TorchEngine`."""
        return self._loaded.max_model_len

    def prepare(self, request: Generate) -> Job:
        """Make a job of a request. Blocks: it tokenizes and may compile a grammar.

        Raises:
            PlatformError: INVALID_ARGUMENT for the caller's mistakes, UNIMPLEMENTED for guided
                decoding where it can't be had.
        """
        check(request, vocabulary=self._loaded.vocabulary)
        if request.n > self._max_answers:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"'n' must be <= {self._max_answers}, got {request.n}.",
                param="n",
            )
        prompt, text = self._prompt(request)
        describer = Describer(request.details, self.texts.token)
        details = request.details
        described = details.input_tokens and details.input_token_details and describer.wants_logits
        room = self._room(prompt, request.stopping.min_new_tokens)
        limit, limit_reason = limit_of(request.stopping.max_new_tokens, room)
        return Job(
            request=request,
            prompt=prompt,
            prompt_text=text,
            answers=self._answers(request, prompt, limit),
            describer=describer,
            prompt_logits=described and not self.is_encoder_decoder,
            ending=Ending(
                rules=request.stopping,
                end_ids=frozenset(self._loaded.end_ids),
                limit=limit,
                limit_reason=limit_reason,
                text_of=self.texts.token,
            ),
        )

    def _prompt(self, request: Generate) -> tuple[list[int], str | None]:
        """Return the prompt after truncation, and its text before."""
        ids = self.texts.encode(request.prompt, special=request.add_special_tokens)
        if request.truncate_prompt_tokens is not None:
            added = isinstance(request.prompt, str) and request.add_special_tokens
            ids = self.texts.truncated(ids, request.truncate_prompt_tokens, special=added)
        if not ids:
            raise PlatformError(Code.INVALID_ARGUMENT, "The prompt is empty.", param="prompt")
        if not request.details.input_text:
            return ids, None
        if isinstance(request.prompt, str):
            return ids, request.prompt
        return ids, self.texts.decode(ids, skip_special=False)

    def _room(self, prompt: list[int], least: int) -> int:
        """Return how many new tokens there is room for."""
        longest = self._loaded.max_model_len
        if not self.is_encoder_decoder:
            return check_room(limit=longest, token_count=len(prompt), min_new_tokens=least)
        # The answer takes no room from the prompt.
        if len(prompt) > longest or least > longest:
            raise PromptTooLong(limit=longest, token_count=len(prompt), min_new_tokens=least)
        return longest

    def _answers(self, request: Generate, prompt: list[int], limit: int) -> list[Answer]:
        guide = None if request.guided is None else self._guides.compile(request.guided)

        def decode(ids: Sequence[int]) -> str:
            return self.texts.decode(ids, skip_special=request.skip_special_tokens)

        return [
            Answer(
                index=index,
                chooser=Chooser(
                    self._model,
                    request,
                    index=index,
                    prompt=[self._loaded.start_id] if self.is_encoder_decoder else prompt,
                    source=prompt if self.is_encoder_decoder else None,
                    limit=limit,
                    guide=None if guide is None else guided.processor(guide),
                ),
                writing=Writing(
                    decode, request.stopping, [] if self.is_encoder_decoder else prompt
                ),
            )
            for index in range(request.n)
        ]

    def _deliver(self, results: Results) -> None:
        """Hand the results of a step over to the event loop, in one call."""

        def receive() -> None:
            for job, pairs in groupby(results.items, key=lambda pair: pair[0]):
                job.arrivals.put([item for _, item in pairs])

        # The event loop may have closed by the time the last results come.
        with contextlib.suppress(RuntimeError):
            self._events.call_soon_threadsafe(receive)
