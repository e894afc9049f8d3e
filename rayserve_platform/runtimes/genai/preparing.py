"""Requests to jobs: prompts to tokens, and what the library is told of each answer."""

import time

from rayserve_platform.core.ending import Ending
from rayserve_platform.core.errors import Code, PlatformError, check_room
from rayserve_platform.core.messages import Generate, Tokenize, Tokens
from rayserve_platform.core.prompts import limit_of
from rayserve_platform.core.writing import Writing
from rayserve_platform.runtimes.genai.answers import Answer, Job
from rayserve_platform.runtimes.genai.loading import Loaded
from rayserve_platform.runtimes.genai.sampling import check, to_config


class Preparer:
    """Prepares requests. Its methods block while a text is tokenized."""

    def __init__(self, loaded: Loaded, *, most_answers: int) -> None:
        self._loaded = loaded
        self._most_answers = most_answers

    def job(self, number: int, request: Generate) -> Job:
        """Make a job of a request.

        Raises:
            PlatformError: INVALID_ARGUMENT for the caller's mistakes, UNIMPLEMENTED for what the
                library can't do.
        """
        loaded = self._loaded
        limit_s = request.stopping.time_limit_s
        deadline = None if limit_s is None else time.monotonic() + limit_s
        check(
            request,
            defaults=loaded.defaults,
            vocabulary=loaded.texts.vocabulary,
            most_answers=self._most_answers,
        )
        prompt, text = self._prompt(request)
        least = request.stopping.min_new_tokens
        room = check_room(limit=loaded.max_model_len, token_count=len(prompt), min_new_tokens=least)
        limit, limit_reason = limit_of(request.stopping.max_new_tokens, room)
        return Job(
            number=number,
            request=request,
            prompt=prompt,
            prompt_text=text,
            answers=[self._answer(request, prompt, index, limit) for index in range(request.n)],
            ending=Ending(
                rules=request.stopping,
                end_ids=loaded.end_ids,
                limit=limit,
                limit_reason=limit_reason,
                text_of=loaded.texts.token,
            ),
            texts=loaded.texts,
            deadline=deadline,
        )

    def tokens(self, request: Tokenize) -> Tokens:
        """Split a prompt into tokens."""
        tokens = self._loaded.texts.tokens(request.prompt, special=request.add_special_tokens)
        kept = request.kept(len(tokens.ids))
        return Tokens(ids=tokens.ids[kept], texts=tokens.texts[kept], offsets=tokens.offsets[kept])

    def text(self, ids: tuple[int, ...]) -> str:
        """Return the text of a caller's tokens, special ones included."""
        texts = self._loaded.texts
        return texts.text(texts.checked(ids), skip_special=False)

    def _prompt(self, request: Generate) -> tuple[list[int], str | None]:
        """Return the prompt after truncation, and its text before where that is asked for."""
        texts, most = self._loaded.texts, request.truncate_prompt_tokens
        special = request.add_special_tokens
        ids = texts.encode(request.prompt, special=special, cut=most is not None)
        if most is not None:
            added = isinstance(request.prompt, str) and special
            ids = texts.truncated(ids, most, special=added)
        if not ids:
            raise PlatformError(Code.INVALID_ARGUMENT, "The prompt is empty.", param="prompt")
        if not request.details.input_text:
            return ids, None
        if isinstance(request.prompt, str):
            return ids, request.prompt
        return ids, texts.text(ids, skip_special=False)

    def _answer(self, request: Generate, prompt: list[int], index: int, limit: int) -> Answer:
        texts, skip = self._loaded.texts, request.skip_special_tokens
        config = to_config(request, index=index, limit=limit, defaults=self._loaded.defaults)
        return Answer(
            index=index,
            config=config,
            writing=Writing(lambda ids: texts.decode(tuple(ids), skip), request.stopping, prompt),
        )
